# Dense tasks: train a detector or segmenter on a merged backbone, merge its own pathways if any, evaluate.


rule transfer:
    input:
        manifests=RULES.run_manifests,
        weights=RULES.run_weights,
    output:
        weights=f"{RUN}/{files.MERGED}",
        evaluation=f"{RUN}/{files.EVALUATION}",
    wildcard_constraints:
        run=RULES.runs("transfer"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.transfer.log",
    benchmark:
        f"{BENCHMARKS}/transfer/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Train and evaluate the transfer {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}transfer {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
