# Before any training: build the miniatures, check what lies on disk, see that all that is asked for can be built.


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
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        "../../environment.yml"
    message:
        "Build the miniature {wildcards.dataset}"
    shell:
        "m2pt data build {wildcards.dataset} {params.arguments} --expect {params.digest} > {log} 2>&1"


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
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../../environment.yml"
    message:
        "Check {wildcards.dataset}"
    shell:
        "m2pt data check {wildcards.dataset} {params.arguments} --expect {params.digest}"
        " --manifest {output.manifest} > {log} 2>&1"


rule open_gate:
    input:
        manifests=RULES.manifests(),
        weights=RULES.imported_weights(),
    output:
        gate=touch(f"{RESULTS}/data/all_checked"),
    params:
        digest=RULES.gate_digest,
        arguments=RULES.arguments,
    log:
        f"{RESULTS}/logs/data/all_checked.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/all_checked.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    conda:
        "../../environment.yml"
    message:
        "All datasets and given weights are sound: see that every model can be built"
    shell:
        "m2pt check {params.arguments} > {log} 2>&1"
