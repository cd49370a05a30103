# `make` alone lists the targets. Each one does its own set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-slow test-fast test-gpu check format bench bench-gpu wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## create .venv with everything at the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[model,slurm,insight,bench,dev]'
	touch $@

demo: $(READY)  ## prune and measure the three shipped models, then write a report (minutes on a laptop)
	$(BIN)/secateur grid grid=demo launcher=local workers=2 out=runs/demo

test: $(READY)  ## the tests, with coverage (what this machine lacks, Slurm for one, is skipped and said)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -m "not slow" $(PYTEST)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test-slow: $(READY)  ## the tests that take minutes: kills and restarts, real grids, the README from top to bottom
	$(BIN)/python -m pytest -m slow $(PYTEST)

test-fast: $(READY)  ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not slurm and not shared" $(PYTEST)

test-gpu: $(READY)  ## every family and method, the kernels, evaluation and the speed clock on the GPU (SECATEUR_TEST_DEVICE=cpu: without one)
	SECATEUR_TEST_DEVICE=$${SECATEUR_TEST_DEVICE:-cuda} $(BIN)/python -m pytest -m gpu $(PYTEST)

check: $(READY)  ## lint, format, types, layers: what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

format: $(READY)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure both sides of every speed claim in one go, and print the ratios
	$(BIN)/python -m secateur.pruning.bench_capture
	$(BIN)/python -m secateur.eval.bench_harness
	$(BIN)/python -m secateur.eval.speed.bench_pruned
	$(BIN)/python -m secateur.eval.speed.bench_loops
	$(BIN)/python -m secateur.slurm.bench_grid eval.limit=5 eval.ppl.max_tokens=1000
	$(BIN)/python -m secateur.pruning.bench_refit
	$(BIN)/python -m secateur.pruning.bench_save
ifdef SECATEUR_SHARED
	for model in stories260K babyllama-tok105-940K; do \
	  $(BIN)/python -m secateur.eval.bench_methods model=$(SECATEUR_SHARED)/assets/models/$$model \
	    train=$(SECATEUR_SHARED)/assets/text/tinystories/train.parquet \
	    text=$(SECATEUR_SHARED)/assets/text/tinystories/validation.parquet || exit 1; done
else
	@echo "not run: the methods beside Torch-Pruning on real models; set SECATEUR_SHARED=FOLDER (assets/models, assets/text)"
endif

bench-gpu: $(READY)  ## everything that should be fast on a GPU, with floors, in at most 8 minutes (BENCH="shape=tiny device=cpu" tries it)
	$(BIN)/python -m secateur.eval.bench_gpu $(BENCH)

wheel: $(READY)  ## build sdist and wheel into dist/
	$(BIN)/python -m build -o dist .

clean:  ## remove what was built (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .coverage .coverage.*
