# Targets of dvc.yaml's stages; what they make is what `m2pt export` gathers.


rule all_encoders:
    input:
        RULES.encoders(),


rule all_models:
    input:
        RULES.models(),
