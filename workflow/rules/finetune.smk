# Targets: attach the pathways and finetune, merge into a plain model, evaluate the merged model.


rule finetune:
    input:
        manifest=RULES.run_manifest,
        weights=RULES.run_weights,
    output:
        weights=f"{RESULTS}/runs/{{run}}/seed{{seed}}/attached.safetensors",
    wildcard_constraints:
        run=RULES.finetuned_runs(),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{RESULTS}/logs/runs/{{run}}-seed{{seed}}.finetune.log",
    benchmark:
        f"{RESULTS}/benchmarks/finetune/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Finetune {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}finetune {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"


rule merge:
    input:
        weights=f"{RESULTS}/runs/{{run}}/seed{{seed}}/attached.safetensors",
    output:
        weights=f"{RESULTS}/runs/{{run}}/seed{{seed}}/merged.safetensors",
    wildcard_constraints:
        run=RULES.finetuned_runs(),
        seed=r"\d+",
    log:
        f"{RESULTS}/logs/runs/{{run}}-seed{{seed}}.merge.log",
    benchmark:
        f"{RESULTS}/benchmarks/merge/{{run}}-seed{{seed}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Merge the pathways of {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt merge {input.weights:q} {output.weights:q} > {log:q} 2>&1"


rule evaluate:
    input:
        attached=f"{RESULTS}/runs/{{run}}/seed{{seed}}/attached.safetensors",
        merged=f"{RESULTS}/runs/{{run}}/seed{{seed}}/merged.safetensors",
    output:
        evaluation=f"{RESULTS}/runs/{{run}}/seed{{seed}}/evaluation.json",
    wildcard_constraints:
        run=RULES.finetuned_runs(),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{RESULTS}/logs/runs/{{run}}-seed{{seed}}.evaluate.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Evaluate the merged {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}evaluate {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
