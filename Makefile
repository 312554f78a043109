# synthetic-dti-maps: `make` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
# The CUDA build of torch comes from PyPI by default. Set this to the index of another build,
# e.g. https://download.pytorch.org/whl/cpu for the CPU build.
TORCH_INDEX ?=
# CPU seconds that each generator of `make bench` is trained for.
BENCH_SECONDS ?= 400
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
READY := $(VENV)/.ready

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --upgrade pip
	pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.lock)"
	pip install --quiet -r requirements.lock
	pip install --quiet --no-deps --editable .
	@touch $@

install: $(READY) ## make .venv with the pinned dependencies

demo: $(READY) ## the whole chain on the simulated cohort, then the table of scores
	@if dvc status --quiet; then echo "Nothing to do: the chain is up to date."; else dvc repro; fi
	@python -m evaluation.summary

repro: $(READY) ## run what a change of data, code or params.yaml made stale
	dvc repro

tune: $(READY) ## bi-level search over what to adapt and how
	python -m training.tune

ui: $(READY) ## MLflow UI with the runs, http://127.0.0.1:5000
	python -m services.tracking ui

serve: $(READY) ## sampling service, http://127.0.0.1:3000
	bentoml serve serving.service:SyntheticDTI --host 127.0.0.1 --port 3000

test: $(READY) ## tests (under 10 minutes on 2 cores)
	pytest -m "not acceptance"

acceptance: $(READY) ## slower tests: the whole as a user would run it
	pytest -m acceptance

bench: $(READY) ## speed and quality, as ratios against named baselines (hours; after `make demo`)
	python benchmarks/judge.py
	python benchmarks/generators.py --seconds $(BENCH_SECONDS)

lint: $(READY) ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

clean: ## remove what the chain made; keeps .venv and the DVC cache
	rm -rf data/bids data/derivatives data/models data/reports data/work data/split.json mlruns

.PHONY: help install demo repro tune ui serve test acceptance bench lint clean
