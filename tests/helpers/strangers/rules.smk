# Rules of the kinds of run that the tests add: `joint` (joint.py), the command `tally` (tally.py) after it, and
# `paired` (pairs.py).


rule joint:
    input:
        manifests=RULES.run_manifests,
        weights=RULES.run_weights,
    output:
        weights=f"{RUN}/{files.ATTACHED}",
    wildcard_constraints:
        run=RULES.runs("joint"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.joint.log",
    benchmark:
        f"{BENCHMARKS}/joint/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Train {wildcards.run} on several datasets (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}joint {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"


rule tally:
    input:
        weights=f"{RUN}/{files.ATTACHED}",
    output:
        evaluation=f"{RUN}/{files.EVALUATION}",
    wildcard_constraints:
        run=RULES.runs("tally"),
        seed=r"\d+",
    params:
        arguments=RULES.arguments,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.tally.log",
    benchmark:
        f"{BENCHMARKS}/tally/{{run}}-seed{{seed}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Tally {wildcards.run} (seed {wildcards.seed})"
    shell:
        "m2pt tally {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments} > {log:q} 2>&1"


rule paired:
    input:
        manifests=RULES.run_manifests,
        weights=RULES.run_weights,
    output:
        weights=f"{RUN}/{files.MERGED}",
        evaluation=f"{RUN}/{files.EVALUATION}",
    wildcard_constraints:
        run=RULES.runs("paired"),
        seed=r"\d+",
    params:
        digest=RULES.run_digest,
        arguments=RULES.arguments,
        launch=RULES.launch,
    log:
        f"{LOGS}/{files.RUNS}/{{run}}-seed{{seed}}.paired.log",
    benchmark:
        f"{BENCHMARKS}/paired/{{run}}-seed{{seed}}.tsv"
    threads: THREADS
    conda:
        "../../environment.yml"
    message:
        "Train {wildcards.run} on pairs (seed {wildcards.seed})"
    shell:
        "m2pt {params.launch}paired {wildcards.run:q} --seed {wildcards.seed:q} {params.arguments}"
        " --expect {params.digest:q} > {log:q} 2>&1"
