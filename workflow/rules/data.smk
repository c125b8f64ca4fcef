# Datasets: build the miniatures, check what lies on disk, and open the gate to training when all is sound.


rule build_miniature:
    output:
        root=directory(f"{RESULTS}/data/{{dataset}}"),
        manifest=f"{RESULTS}/data/{{dataset}}.manifest.json",
    wildcard_constraints:
        dataset=RULES.miniatures(),
    params:
        digest=RULES.dataset_digest,
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
    shell:
        "m2pt data build {wildcards.dataset} {ARGUMENTS} --expect {params.digest} > {log} 2>&1"


rule check_dataset:
    output:
        manifest=f"{RESULTS}/data/{{dataset}}.manifest.json",
    wildcard_constraints:
        dataset=RULES.own_datasets(),
    params:
        digest=RULES.dataset_digest,
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
    shell:
        "m2pt data check {wildcards.dataset} {ARGUMENTS} --expect {params.digest}"
        " --manifest {output.manifest} > {log} 2>&1"


rule open_gate:
    input:
        manifests=RULES.manifests(),
        weights=RULES.imported_weights(),
    output:
        gate=touch(f"{RESULTS}/data/all_checked"),
    log:
        f"{RESULTS}/logs/data/all_checked.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/all_checked.tsv"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
    conda:
        "../../environment.yml"
    shell:
        "echo 'All datasets and given weights are sound: {input}' > {log}"
