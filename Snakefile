"""M2PT and AGM, from raw data to printed tables: `snakemake --cores all results/table1.csv`."""

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version

from m2pt.errors import InputError
from m2pt.tracking.background import start_background, stop_background
from m2pt.plan.rules import Rules, checked
from m2pt import run_files as files

min_version("9.0")

try:
    if not workflow.configfiles:  # a --configfile replaces the default: configs are never merged

        configfile: checked("config/config.yaml")

    RULES = Rules(workflow.configfiles, config)
except InputError as error:
    raise WorkflowError(str(error)) from None

PLAN = RULES.plan
RESULTS = str(PLAN.results)
DATA, LOGS, BENCHMARKS = (f"{RESULTS}/{name}" for name in (files.DATA, files.LOGS, files.BENCHMARKS))
ENCODER = str(PLAN.encoder_directory("{encoder}", "{seed}"))
RUN = str(PLAN.run_directory("{run}", "{seed}"))
THREADS = PLAN.config.threads

if workflow.is_main_process:  # not in the log of each job
    for sentence in RULES.missing_cells():
        logger.warning(sentence)


rule all_tables:
    default_target: True
    input:
        RULES.reports(),


include: "workflow/rules/data.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/transfer.smk"
include: "workflow/rules/multimodal.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/checkpoints.smk"


report: "workflow/report/workflow.rst"


onstart:
    if preflight := RULES.preflight(workflow.dag.needrun_jobs()):
        shell("{command}", command=preflight)
    start_background(PLAN.results)
    # Snakemake's own limit on jobs per second starts a timer for each evaluation, whose end is an evaluation: with
    # every finished job they become more (its pull request 3744), and hundreds of jobs keep a core busy.
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):  # the default, not a user's own
        workflow.scheduler.job_rate_limiter = None


onsuccess:
    stop_background(PLAN.results)


onerror:
    stop_background(PLAN.results)
