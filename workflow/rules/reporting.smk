# Tables: tidy CSV, Markdown and LaTeX from the result files.


rule tabulate:
    input:
        evaluations=RULES.evaluations,
    output:
        csv=report(
            f"{RESULTS}/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        markdown=f"{RESULTS}/{{table}}.md",
        latex=f"{RESULTS}/{{table}}.tex",
    wildcard_constraints:
        table="|".join(PLAN.tables),
    params:
        digest=RULES.table_digest,
        arguments=RULES.arguments,
    log:
        f"{RESULTS}/logs/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{table}}.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    conda:
        "../../environment.yml"
    message:
        "Write {wildcards.table}"
    shell:
        "m2pt tabulate {wildcards.table} {params.arguments} --expect {params.digest} > {log} 2>&1"
