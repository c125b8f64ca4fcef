# Targets for the stages of dvc.yaml; `m2pt export` then copies their outputs to the checkpoints folder.


rule all_encoders:
    input:
        RULES.encoders(),


rule all_models:
    input:
        RULES.models(),
