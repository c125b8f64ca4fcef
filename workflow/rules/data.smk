# Datasets: build miniatures; make your own of their downloads, pack them, extract frames of videos; check them.


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


rule prepare_dataset:
    input:
        made=RULES.made_before("prepare_dataset"),
    output:
        done=touch(f"{DATA}/{{dataset}}.{files.PREPARED}"),
    wildcard_constraints:
        dataset=RULES.datasets_made_by("prepare_dataset"),
    params:
        command=RULES.step("prepare_dataset"),
    log:
        f"{LOGS}/{files.DATA}/{{dataset}}.prepare.log",
    benchmark:
        f"{BENCHMARKS}/{files.DATA}/{{dataset}}.prepare.tsv"
    priority: 2
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Make {wildcards.dataset} of its downloads"
    shell:
        "m2pt {params.command} > {log:q} 2>&1"


rule pack_dataset:
    input:
        made=RULES.made_before("pack_dataset"),
    output:
        done=touch(f"{DATA}/{{dataset}}.{files.PACKED}"),
    wildcard_constraints:
        dataset=RULES.datasets_made_by("pack_dataset"),
    params:
        command=RULES.step("pack_dataset"),
    log:
        f"{LOGS}/{files.DATA}/{{dataset}}.pack.log",
    benchmark:
        f"{BENCHMARKS}/{files.DATA}/{{dataset}}.pack.tsv"
    priority: 2
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Pack {wildcards.dataset} into shards"
    shell:
        "m2pt {params.command} > {log:q} 2>&1"


rule extract_frames:
    input:
        videos=RULES.videos,
        made=RULES.made_before("extract_frames"),
    output:
        done=touch(f"{DATA}/{{dataset}}.{files.FRAMES}"),
    wildcard_constraints:
        dataset=RULES.datasets_made_by("extract_frames"),
    params:
        command=RULES.step("extract_frames"),
    log:
        f"{LOGS}/{files.DATA}/{{dataset}}.frames.log",
    benchmark:
        f"{BENCHMARKS}/{files.DATA}/{{dataset}}.frames.tsv"
    priority: 2
    threads: 4
    conda:
        "../../environment.yml"
    message:
        "Extract the frames of the videos of {wildcards.dataset}"
    shell:
        "m2pt {params.command} --threads {threads} > {log:q} 2>&1"


rule check_dataset:
    input:
        made=RULES.made_before("check_dataset"),
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
