# Several modalities: train a classifier with a balancing method, select the epoch on validation, evaluate.


# Every table and figure of the methods of joint training.
rule agm:
    input:
        RULES.multimodal_reports,


rule multimodal:
    input:
        manifests=RULES.run_manifests,
        weights=RULES.run_weights,
    output:
        weights=f"{RUN}/{files.MODEL}",
        evaluation=f"{RUN}/{files.EVALUATION}",
    wildcard_constraints:
        run=RULES.runs("multimodal"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.multimodal.log",
    benchmark:
        f"{BENCHMARKS}/multimodal/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Train and evaluate the joint training {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}multimodal {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
