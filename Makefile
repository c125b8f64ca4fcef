# On a fresh machine: `make table1` or `make test`. Both make the environment first; `make help` lists the rest.

# The interpreter to build the environment from: make table1 PYTHON=python3.12
PYTHON ?= python3
# The build of torch, in the words of the PyTorch install page: make table1 TORCH_FLAGS="--index-url URL".
# Empty takes pip's default. It is read when the environment is made; `make clean` before choosing another.
TORCH_FLAGS ?=

# The folder whose runs `make mlflow-ui` shows: results: of your config.
RESULTS ?= results
# A recipe reads it as "$$RESULTS": whatever the name holds, neither make nor the shell takes it for code.
override RESULTS := $(value RESULTS)
export RESULTS

SHELL := bash
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
IN_VENV = PATH="$$PWD/$(VENV)/bin:$$PATH" XDG_CACHE_HOME="$$($(CACHE))"
# Snakemake ends with a traceback where it cannot write its cache, as without a home folder of one's own.
CACHE := cache="$${XDG_CACHE_HOME:-$$(echo ~)/.cache}"; \
	{ mkdir -p "$$cache/snakemake" && test -w "$$cache/snakemake"; } 2> /dev/null || cache="$$PWD/$(VENV)/cache"; echo "$$cache"
# The URI of a tracking store in a file, in the words of the tracker that writes it.
STORE_URI := python -c 'import pathlib, sys; from m2pt.reporting.mlflow_store import sqlite_uri; \
	print(sqlite_uri(pathlib.Path(sys.argv[1])))'
INSTALLED := $(VENV)/complete
LOG := $(VENV)/install.log
# Of pip's many lines, what a person waiting wants to see: the large downloads, the last step, the errors.
NOTABLE := ^(ERROR.*|Installing collected packages| *Downloading .*[0-9]{2}\.[0-9] MB\)| *Using cached .*[0-9]{2}\.[0-9] MB\))
SHOW := 2>&1 | tee -a $(LOG) | { grep --line-buffered --only-matching --extended-regexp '$(NOTABLE)' || true; }
# Another build of torch needs other CUDA packages than the default one, whose pins are then left out.
PINS := $(if $(TORCH_FLAGS),<(grep --invert-match --extended-regexp '^(cuda|nvidia|triton)' constraints.txt),constraints.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install table1 tables test test-slurm lint report docs mlflow-ui constraints clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9.-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r target text; do printf 'make %-17s%s\n' "$$target" "$$text"; done

install: $(INSTALLED) ## create the environment, which the other targets do as well

table1: $(INSTALLED) ## build everything that Table 1 needs, and results/table1.csv
	@$(IN_VENV) snakemake --cores all results/table1.csv
	@cat results/table1.md

tables: $(INSTALLED) ## build every table and figure of the paper, and results/summary.md
	@$(IN_VENV) snakemake --cores all
	@cat results/summary.md

test: $(INSTALLED) ## run the tests
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slurm: $(INSTALLED) ## run the tests on Slurm, which tests/slurm/slurm-up starts on this machine
	@$(IN_VENV) OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist loadfile -m slurm tests/slurm

lint: $(INSTALLED) ## check style and types
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy

report: tables ## write results/report.html: tables and figures with captions, the runs, their times
	@$(IN_VENV) snakemake --report results/report.html

# README's Figure 3 is of three seeds, figure3_three_seeds.svg, and is copied by hand from a run with them.
docs: tables ## copy the tables and figures that README shows from results/ to docs/miniature
	@mkdir -p docs/miniature
	@cp results/*.md results/*.svg docs/miniature/

# One worker and none of MLflow's background jobs: eight processes fewer, and it answers within seconds.
mlflow-ui: $(INSTALLED) ## browse the training runs in MLflow (of another folder: RESULTS=results/paper)
	@case "$$MLFLOW_TRACKING_URI" in [hH][tT][tT][pP]*) $(IN_VENV); echo "The runs are on your server: $$(python -m m2pt.reporting.tracking_uri)"; exit 1 ;; esac
	@mkdir -p -- "$$RESULTS"
	@export $(IN_VENV); MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-$$($(STORE_URI) "$$RESULTS/mlflow.db")}" mlflow ui --workers 1

constraints: $(INSTALLED) ## pin what .venv holds now, after you upgraded something in it
	@$(VENV)/bin/python tools/pins.py constraints > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@$(MAKE) --no-print-directory environment.yml

environment.yml: constraints.txt tools/pins.py ## write the pins as a conda environment
	@$(PYTHON) tools/pins.py environment < constraints.txt > $@.new
	@mv $@.new $@

clean: ## remove the environment and the tools' caches; results/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# The environment is whole or not at all: it counts once `incomplete` has become `complete`, and what an
# interrupted install left behind is thrown away. Changed pins are installed over a complete environment.
$(INSTALLED): pyproject.toml constraints.txt
	@$(CHECK_FOLDER)
	@$(CHECK_PYTHON)
	@if test -e $(VENV)/incomplete; then rm -rf $(VENV); fi
	@mkdir -p $(VENV); rm -f $@; touch $(VENV)/incomplete
	@echo "Installing into $(VENV), log in $(LOG)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_FLAGS),$(call INSTALL,--no-deps $(TORCH_FLAGS) torch torchvision),true)
	@$(call INSTALL,--editable '.[dev]')
	@mv $(VENV)/incomplete $@

INSTALL = set -o pipefail; $(PIP) install --progress-bar off --constraint $(PINS) $(1) $(SHOW) \
	|| { tail -n 20 $(LOG) >&2; exit 1; }

# pip's scripts name their Python between a shell's double quotes, and a colon ends a folder of PATH.
CHECK_FOLDER = case "$$PWD" in *['":\$$`']*) \
	echo "$$PWD: no environment can be made below such a path; move it to one without \": \\ \$$ or \`" >&2; exit 1 ;; esac

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
