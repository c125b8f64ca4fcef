# Start with `make table1` or `make test`: both create the environment first. `make help` lists all targets.

# Python interpreter of the environment: make table1 PYTHON=python3.12
PYTHON ?= python3
# Build of torch, as flags from the PyTorch install page: make table1 TORCH_FLAGS="--index-url URL".
# Empty installs pip's default. It takes effect when the environment is created: run `make clean` to change it.
TORCH_FLAGS ?=

# Folder of the runs that `make mlflow-ui` shows: `results` of your config.
RESULTS ?= results
# Recipes use "$$RESULTS", so that neither make nor the shell expands anything in the name.
override RESULTS := $(value RESULTS)
export RESULTS

SHELL := bash
VENV := .venv
EXECUTOR := plugins/snakemake-executor-plugin-submitit
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
IN_VENV = PATH="$$PWD/$(VENV)/bin:$$PATH" XDG_CACHE_HOME="$$($(CACHE))"
# Snakemake ends with a traceback if it cannot write its cache, for example without a home folder.
CACHE := cache="$${XDG_CACHE_HOME:-$$(echo ~)/.cache}"; \
	{ mkdir -p "$$cache/snakemake" && test -w "$$cache/snakemake"; } 2> /dev/null || cache="$$PWD/$(VENV)/cache"; echo "$$cache"
# URI of the tracking store in a file, as the tracker spells it.
STORE_URI := python -c 'import pathlib, sys; from m2pt.tracking.mlflow_store import sqlite_uri; \
	print(sqlite_uri(pathlib.Path(sys.argv[1])))'
INSTALLED := $(VENV)/complete
LOG := $(VENV)/install.log
# The lines of pip's output that are shown: large downloads, the last step, errors. All of them are in the log.
NOTABLE := ^(ERROR.*|Installing collected packages| *Downloading .*[0-9]{2}\.[0-9] MB\)| *Using cached .*[0-9]{2}\.[0-9] MB\))
SHOW := 2>&1 | tee -a $(LOG) | { grep --line-buffered --only-matching --extended-regexp '$(NOTABLE)' || true; }
# Another build of torch needs other CUDA packages than the pinned ones.
PINS := $(if $(TORCH_FLAGS),<(grep --invert-match --extended-regexp '^(cuda|nvidia|triton)' constraints.txt),constraints.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install table1 tables agm rehearse test test-slurm lint report docs mlflow-ui constraints clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9.-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r target text; do printf 'make %-17s%s\n' "$$target" "$$text"; done

install: $(INSTALLED) ## create the environment (the other targets do so too)

table1: $(INSTALLED) ## train what Table 1 needs and write results/table1.csv
	@$(IN_VENV) snakemake --cores all results/table1.csv
	@cat results/table1.md

tables: $(INSTALLED) ## write every table and figure of both papers and results/summary.md
	@$(IN_VENV) snakemake --cores all
	@cat results/summary.md

agm: $(INSTALLED) ## write the tables and figures of AGM and the methods that it is compared with
	@$(IN_VENV) snakemake --cores all agm
	@cat results/agm_accuracy.md

rehearse: $(INSTALLED) ## two steps of each kind of training at the paper's scale, with synthetic inputs
	@$(IN_VENV) m2pt rehearse --config config/paper.yaml

test: $(INSTALLED) ## run the tests
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slurm: $(INSTALLED) ## run the tests that need Slurm (tests/slurm/slurm-up starts one on this machine)
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist loadgroup -m slurm tests/slurm $(EXECUTOR)/tests/slurm

lint: $(INSTALLED) ## check style and types
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy

report: tables ## write results/report.html: tables and figures with captions, runtimes of the jobs
	@$(IN_VENV) snakemake --report results/report.html

# The Figure 3 in docs/results.md has three seeds: copy figure3_three_seeds.svg from such a run yourself.
docs: tables ## copy tables and figures from results/ to docs/miniature
	@mkdir -p docs/miniature
	@cp results/*.md results/*.svg docs/miniature/

# One worker and no background jobs of MLflow: eight processes fewer, and it starts within seconds.
mlflow-ui: $(INSTALLED) ## show the runs in MLflow (those of another folder: RESULTS=results/paper)
	@case "$$MLFLOW_TRACKING_URI" in [hH][tT][tT][pP]*) $(IN_VENV); echo "The runs are on your server: $$(python -m m2pt.tracking.uri)"; exit 1 ;; esac
	@mkdir -p -- "$$RESULTS"
	@export $(IN_VENV); MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-$$($(STORE_URI) "$$RESULTS/mlflow.db")}" mlflow ui --workers 1

constraints: $(INSTALLED) ## pin the packages in .venv, after an upgrade
	@$(VENV)/bin/python tools/pins.py constraints > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@$(MAKE) --no-print-directory environment.yml

environment.yml: constraints.txt tools/pins.py ## write the pins as a conda environment
	@$(PYTHON) tools/pins.py environment < constraints.txt > $@.new
	@mv $@.new $@

config/schema.json: $(INSTALLED) $(wildcard m2pt/config/*.py m2pt/catalog/*.py) ## write the JSON schema of configs
	@$(VENV)/bin/python tools/config_schema.py > $@.new
	@mv $@.new $@

clean: ## remove the environment and the tools' caches, but not results/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# The file `incomplete` becomes `complete` when all is installed. What an interrupted installation leaves is
# removed first; changed requirements are installed into the existing environment.
$(INSTALLED): pyproject.toml $(EXECUTOR)/pyproject.toml constraints.txt
	@$(CHECK_FOLDER)
	@$(CHECK_PYTHON)
	@if test -e $(VENV)/incomplete; then rm -rf $(VENV); fi
	@mkdir -p $(VENV); rm -f $@; touch $(VENV)/incomplete
	@echo "Installing into $(VENV), log in $(LOG)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_FLAGS),$(call INSTALL,--no-deps $(TORCH_FLAGS) torch torchvision),true)
	@$(call INSTALL,--editable '.[dev]' --editable $(EXECUTOR))
	@mv $(VENV)/incomplete $@

INSTALL = set -o pipefail; $(PIP) install --progress-bar off --constraint $(PINS) $(1) $(SHOW) \
	|| { tail -n 20 $(LOG) >&2; exit 1; }

# pip's scripts have the path of Python in double quotes, and a colon separates the folders in PATH.
CHECK_FOLDER = case "$$PWD" in *['":\$$`']*) \
	echo "$$PWD: no environment can be created below this path; move it to one without \": \\ \$$ or \`" >&2; exit 1 ;; esac

define CHECK_PYTHON
fit() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; }; \
if ! fit "$(PYTHON)"; then \
	version=$$("$(PYTHON)" --version 2>&1) || version="no Python that runs"; \
	echo "$(PYTHON) is $$version: Python 3.11 or newer with its venv module is needed." >&2; \
	for other in python3.14 python3.13 python3.12 python3.11; do \
		if fit $$other; then echo "This machine has one: make $(MAKECMDGOALS) PYTHON=$$other" >&2; exit 1; fi; \
	done; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make ... PYTHON=PATH" >&2; \
	exit 1; \
fi
endef
