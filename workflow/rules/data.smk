# Datasets: build miniatures, check datasets on disk. Both write a manifest.


rule build_miniature:
    output:
        root=directory(f"{DATA}/{{dataset}}"),
        manifest=f"{DATA}/{{dataset}}.{files.MANIFEST}",
    wildcard_constraints:
        dataset=RULES.miniatures(),
    params:
        digest=RULES.dataset_digest,
        arguments=RULES.arguments,
    log:
        f"{LOGS}/{files.DATA}/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/{files.DATA}/{{dataset}}.tsv"
    priority: 1
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Build the miniature {wildcards.dataset}"
    shell:
        "m2pt data build {wildcards.dataset:q} {params.arguments} --expect {params.digest:q} > {log:q} 2>&1"


rule check_dataset:
    output:
        manifest=f"{DATA}/{{dataset}}.{files.MANIFEST}",
    wildcard_constraints:
        dataset=RULES.own_datasets(),
    params:
        digest=RULES.dataset_digest,
        arguments=RULES.arguments,
    log:
        f"{LOGS}/{files.DATA}/{{dataset}}.log",
    benchmark:
        f"{BENCHMARKS}/{files.DATA}/{{dataset}}.tsv"
    priority: 1
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Check {wildcards.dataset}"
    shell:
        "m2pt data check {wildcards.dataset:q} {params.arguments} --expect {params.digest:q}"
        " --manifest {output.manifest:q} > {log:q} 2>&1"
