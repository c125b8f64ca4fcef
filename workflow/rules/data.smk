# Datasets: build the miniatures, check what lies on disk; both leave a manifest.


rule build_miniature:
    output:
        root=directory(f"{RESULTS}/data/{{dataset}}"),
        manifest=f"{RESULTS}/data/{{dataset}}.manifest.json",
    wildcard_constraints:
        dataset=RULES.miniatures(),
    params:
        digest=RULES.dataset_digest,
        arguments=RULES.arguments,
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
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
        manifest=f"{RESULTS}/data/{{dataset}}.manifest.json",
    wildcard_constraints:
        dataset=RULES.own_datasets(),
    params:
        digest=RULES.dataset_digest,
        arguments=RULES.arguments,
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    priority: 1
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Check {wildcards.dataset}"
    shell:
        "m2pt data check {wildcards.dataset:q} {params.arguments} --expect {params.digest:q}"
        " --manifest {output.manifest:q} > {log:q} 2>&1"
