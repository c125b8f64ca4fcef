# Tables, figures and the summary of the claims, from result files.


rule tabulate:
    input:
        evaluations=RULES.table_evaluations,
    output:
        csv=report(
            f"{RESULTS}/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        markdown=f"{RESULTS}/{{table}}.md",
        latex=f"{RESULTS}/{{table}}.tex",
        made=f"{RESULTS}/{{table}}.{files.PROVENANCE}",
    wildcard_constraints:
        table=RULES.tables(),
    params:
        digest=RULES.table_digest,
        arguments=RULES.arguments,
        made=RULES.made,
    log:
        f"{LOGS}/{{table}}.log",
    benchmark:
        f"{BENCHMARKS}/{{table}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Write {wildcards.table}"
    shell:
        "m2pt tabulate {wildcards.table:q} {params.arguments} --expect {params.digest:q} > {log:q} 2>&1"


rule plot:
    input:
        evaluations=RULES.figure_evaluations,
    output:
        svg=report(
            f"{RESULTS}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{RESULTS}/{{figure}}.pdf",
        png=f"{RESULTS}/{{figure}}.png",
        csv=f"{RESULTS}/{{figure}}.csv",
        made=f"{RESULTS}/{{figure}}.{files.PROVENANCE}",
    wildcard_constraints:
        figure=RULES.figures(),
    params:
        digest=RULES.figure_digest,
        arguments=RULES.arguments,
        caption=RULES.figure_caption,
        made=RULES.made,
    log:
        f"{LOGS}/{{figure}}.log",
    benchmark:
        f"{BENCHMARKS}/{{figure}}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Draw {wildcards.figure}"
    shell:
        "m2pt plot {wildcards.figure:q} {params.arguments} --expect {params.digest:q} > {log:q} 2>&1"


rule summarize:
    input:
        evaluations=RULES.claims_evaluations,
    output:
        summary=report(
            f"{RESULTS}/{files.SUMMARY}.md",
            caption="../report/summary.rst",
            category="Claims",
        ),
        made=f"{RESULTS}/{files.SUMMARY}.{files.PROVENANCE}",
    params:
        digest=RULES.claims_digest,
        arguments=RULES.arguments,
        made=RULES.made,
    log:
        f"{LOGS}/{files.SUMMARY}.log",
    benchmark:
        f"{BENCHMARKS}/{files.SUMMARY}.tsv"
    threads: 1
    conda:
        "../../environment.yml"
    message:
        "Judge the paper's claims"
    shell:
        "m2pt summarize {params.arguments} --expect {params.digest:q} > {log:q} 2>&1"


rule unknown_result:
    input:
        RULES.refuse,
    output:
        f"{RESULTS}/{{name}}.{{kind}}",
    wildcard_constraints:
        name=RULES.unknown_names(),
        kind="|".join((*files.TABLE_FORMATS, *files.FIGURE_FORMATS)),
    log:
        f"{LOGS}/{{name}}.{{kind}}.log",
    conda:
        "../../environment.yml"
    message:
        "Refuse {wildcards.name}: no such table or figure"
    shell:
        "false > {log:q} 2>&1"
