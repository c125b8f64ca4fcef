# Encoders: pretrained here, or weights that come from elsewhere.


rule pretrain_encoder:
    input:
        manifest=RULES.encoder_manifest,
    output:
        weights=f"{RESULTS}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
    wildcard_constraints:
        encoder=RULES.pretrained_encoders(),
        seed=r"\d+",
    params:
        digest=RULES.encoder_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{RESULTS}/logs/encoders/{{encoder}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/encoders/{{encoder}}-seed{{seed}}.tsv"
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
        weights=f"{RESULTS}/encoders/{{encoder}}/seed{{seed}}/encoder.safetensors",
    wildcard_constraints:
        encoder=RULES.imported_encoders(),
        seed=r"\d+",
    params:
        digest=RULES.encoder_digest,
        arguments=RULES.arguments,
    log:
        f"{RESULTS}/logs/encoders/{{encoder}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/encoders/{{encoder}}-seed{{seed}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Take the {wildcards.encoder} encoder from where the config says"
    shell:
        "m2pt import {wildcards.encoder:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
