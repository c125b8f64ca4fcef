# Dense tasks: train a detector or a segmenter on the merged backbone, merge what it attached, evaluate.


rule transfer:
    input:
        manifest=RULES.run_manifest,
        weights=RULES.run_weights,
    output:
        weights=f"{RESULTS}/runs/{{run}}/seed{{seed}}/merged.safetensors",
        evaluation=f"{RESULTS}/runs/{{run}}/seed{{seed}}/evaluation.json",
    wildcard_constraints:
        run=RULES.transfer_runs(),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{RESULTS}/logs/runs/{{run}}-seed{{seed}}.transfer.log",
    benchmark:
        f"{RESULTS}/benchmarks/transfer/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Transfer: train and evaluate {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}transfer {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
