"""Multimodal Pathway, from raw data to printed table. `snakemake --cores all results/table1.csv`"""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from m2pt.errors import InputError
from m2pt.reporting.background_tracker import start_background, stop_background
from m2pt.schema.rules import Rules, checked

min_version("9.0")

try:
    if not workflow.configfiles:  # a --configfile replaces the default, nothing of which shows through

        configfile: checked("config/config.yaml")

    RULES = Rules(workflow.configfiles, config)
except InputError as error:
    raise WorkflowError(str(error)) from None

PLAN = RULES.plan
RESULTS = str(PLAN.results)
THREADS = PLAN.config.threads


rule all_tables:
    default_target: True
    input:
        RULES.reports(),


include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/transfer.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/checkpoints.smk"


report: "workflow/report/workflow.rst"


onstart:
    if preflight := RULES.preflight(workflow.dag.needrun_jobs()):
        shell("{command}", command=preflight)
    start_background(PLAN.results)


onsuccess:
    stop_background(PLAN.results)


onerror:
    stop_background(PLAN.results)
