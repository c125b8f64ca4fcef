# Datasets: build miniatures, extract frames of videos, check datasets on disk.


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


rule extract_frames:
    input:
        videos=RULES.videos,
    output:
        done=touch(f"{DATA}/{{dataset}}.{files.FRAMES}"),
    wildcard_constraints:
        dataset=RULES.datasets_with_videos(),
    params:
        frames=RULES.frames,
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
        "m2pt data frames {input.videos:q} {params.frames:q} --threads {threads} > {log:q} 2>&1"


rule check_dataset:
    input:
        frames=RULES.extracted_frames,
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
