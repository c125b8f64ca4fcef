# Finetuned runs: attach the pathways, finetune, merge them into a plain model, evaluate it.


rule finetune:
    input:
        manifests=RULES.run_manifests,
        weights=RULES.run_weights,
    output:
        weights=f"{RUN}/{files.ATTACHED}",
    wildcard_constraints:
        run=RULES.runs("finetune"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.finetune.log",
    benchmark:
        f"{BENCHMARKS}/finetune/{{run}}-seed{{seed}}.tsv"
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
        weights=f"{RUN}/{files.ATTACHED}",
    output:
        weights=f"{RUN}/{files.MERGED}",
    wildcard_constraints:
        run=RULES.runs("merge"),
        seed=r"\d+",
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.merge.log",
    benchmark:
        f"{BENCHMARKS}/merge/{{run}}-seed{{seed}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Merge the pathways of {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt merge {input.weights:q} {output.weights:q} > {log:q} 2>&1"


rule evaluate:
    input:
        attached=f"{RUN}/{files.ATTACHED}",
        merged=f"{RUN}/{files.MERGED}",
    output:
        evaluation=f"{RUN}/{files.EVALUATION}",
    wildcard_constraints:
        run=RULES.runs("evaluate"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.evaluate.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Evaluate the merged model of {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}evaluate {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
