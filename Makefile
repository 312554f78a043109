# synthetic-dti-maps: `make` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
# The CUDA build of torch comes from PyPI by default. Set this to the index of another build,
# e.g. https://download.pytorch.org/whl/cpu for the CPU build.
TORCH_INDEX ?=
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
# Threads that wait for others must not spin: see contracts/__init__.py.
export OMP_WAIT_POLICY ?= PASSIVE
# Makes the registry equal to data/models and data/reports. DVC cannot know whether it is: another
# tracking server, an older commit or a pull changes that without changing any dependency.
REGISTER := python -m registry.register
# DVC removes a stage's outputs before it runs the stage. They are not marked `persist`, since DVC
# would then train again what its cache holds, e.g. after a `git revert`.
STOPPED = { code=$$?; \
  echo "The chain was stopped. The same command goes on where it was. To have the last outputs of" \
    "the stopped stage back instead: dvc checkout" >&2; exit $$code; }
REPRO = trap : INT TERM; dvc repro || $(STOPPED)
# The demo's networks are too small to gain much from a second thread, so that its 2D and its 3D
# generator are made side by side, with half of the cores each. (Stages before them must not be
# looked at again, since DVC would lock their outputs.)
SIDE_BY_SIDE = trap : INT TERM; \
  { dvc repro template && $(MAKE) --no-print-directory --jobs 2 chain-2d chain-3d && dvc repro; } \
  || $(STOPPED)
HALF_OF_CORES = $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 ))
# Besides the headline metrics only the parameters that differ; no hashes of code and data.
COLUMNS_SHOWN = --only-changed --keep 'data/reports/metrics-' \
  --drop '.*\.(py|lock|html)$$|data/[^:]*$$'
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
	@if dvc status --quiet; then echo "Nothing to do: the chain is up to date."; else $(SIDE_BY_SIDE); fi
	@$(REGISTER)
	@python -m evaluation.summary

chain-2d chain-3d: chain-%: $(READY)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(HALF_OF_CORES)} dvc --wait-for-lock repro \
	  --single-item train@$* adapt@$* evaluate@base-$* evaluate@adapted-$*

repro: $(READY) ## run what a change of data, code or params.yaml made stale
	@$(REPRO)
	@$(REGISTER)

pull: $(READY) ## fetch what somebody pushed to the DVC remote, and register its generators
	@dvc pull || { code=$$?; \
	  echo "The remote does not hold all that dvc.lock records. The lock of a fresh clone is that of" \
	    "a simulated cohort, which nobody stores: make it with \`make demo\`. For data of a lab," \
	    "have them pushed with \`dvc push\`, and name their place with \`dvc remote\`." >&2; exit $$code; }
	@$(REGISTER)

stages: $(READY) ## write the code that each stage depends on into dvc.yaml
	python -m infra.stages

experiments: $(READY) ## the last ten commits with their headline metrics and what differs
	@dvc exp show --num 10 $(COLUMNS_SHOWN)

tune: $(READY) ## bi-level search over what to adapt and how
	python -m training.search

adopt: $(READY) ## write the search's choice into params.yaml: make adopt, or make adopt TRIAL=7
	python -m training.search adopt $(if $(TRIAL),--trial $(TRIAL))

plan: $(READY) ## what training fits into memory: make plan ARGS="--mode 3D --peft lora --memory 16GB"
	python -m training.plan $(ARGS)

ui: $(READY) ## MLflow UI with the runs, http://127.0.0.1:5000
	python -m services.tracking ui

serve: $(READY) ## sampling service, http://127.0.0.1:3000
	bentoml serve serving.service:SyntheticDTI --host 127.0.0.1 --port 3000

test: $(READY) ## tests (under 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 pytest -m "not acceptance" -n auto --dist loadfile

acceptance: $(READY) ## slower tests: the whole as a user would run it
	OMP_NUM_THREADS=1 pytest -m acceptance -n auto --dist loadfile

bench-peft: $(READY) ## what each way of adapting is worth on simulated patients (after `make demo`)
	python -m benchmarks peft-2d peft-3d

bench: $(READY) ## speed and quality, as ratios against named baselines (hours; after `make demo`)
	python -m benchmarks

tables: $(READY) ## write the tables of the docs from the files in results/
	python -m benchmarks.tables

lint: $(READY) ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

clean: ## remove what the chain made; keeps .venv and the DVC cache
	rm -rf data/bids data/derivatives data/template data/models data/reports data/work data/split.json mlruns

.PHONY: help install demo chain-2d chain-3d repro pull stages experiments tune adopt plan ui serve test acceptance bench bench-peft tables lint clean
