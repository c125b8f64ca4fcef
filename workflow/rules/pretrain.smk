# Encoders: pretrain them, or import weights from a file, from DVC, from a kept epoch or at random.


rule pretrain_encoder:
    input:
        manifest=RULES.encoder_manifest,
    output:
        weights=f"{ENCODER}/{files.ENCODER}",
    wildcard_constraints:
        encoder=RULES.pretrained_encoders(),
        seed=r"\d+",
    params:
        digest=RULES.encoder_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.ENCODERS}/{{encoder}}-seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/{files.ENCODERS}/{{encoder}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Pretrain the {wildcards.encoder} encoder (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}pretrain {wildcards.encoder:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"


rule import_encoder:
    input:
        source=RULES.encoder_source,
    output:
        weights=f"{ENCODER}/{files.ENCODER}",
    wildcard_constraints:
        encoder=RULES.imported_encoders(),
        seed=r"\d+",
    params:
        digest=RULES.encoder_digest,
        arguments=RULES.arguments,
    log:
        f"{LOGS}/{files.ENCODERS}/{{encoder}}-seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/{files.ENCODERS}/{{encoder}}-seed{{seed}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Import the {wildcards.encoder} encoder (seed {wildcards.seed})"
    shell:
        "m2pt import {wildcards.encoder:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
