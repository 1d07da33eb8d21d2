# Targets for users call the command `malignancy`; `make` has exit codes of its own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY = true
# Another index for torch, for example TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
DEMO := demo
CONFIG ?= configs/demo.yaml
MODEL ?= models:/malignancy-demo@champion
OUT ?= scores

.DEFAULT_GOAL := help
.PHONY: help setup demo train evaluate score ui preflight check test lint types campaign bench ablation notebooks

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/.done ## Create .venv and install everything, pinned

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

$(DEMO)/data/manifest.csv: | setup
	$(BIN)/malignancy demo-data $(DEMO)/data

demo: setup $(DEMO)/data/manifest.csv ## The whole pipeline on the embedded dataset, offline, in minutes
	$(BIN)/malignancy train configs/demo.yaml
	$(BIN)/malignancy score $(MODEL) $(DEMO)/data/unlabelled.csv --out $(DEMO)/scores || [ $$? -eq 1 ]  # 1: some cases were rejected
	@cat "$$(ls -td $(DEMO)/runs/*/summary.txt | head -1)" $(DEMO)/scores/summary.txt
	@echo "look further: make ui, the report named above, $(DEMO)/scores/scores.csv"

train: setup ## Train: make train CONFIG=configs/mine.yaml
	$(BIN)/malignancy train $(CONFIG)

evaluate: setup ## Judge a model: make evaluate MODEL=... MANIFEST=... OUT=...
	$(BIN)/malignancy evaluate $(MODEL) $(MANIFEST) --out $(OUT)

score: setup ## Score scans: make score SCANS=folder-or-manifest MODEL=... OUT=...
	$(BIN)/malignancy score $(MODEL) $(SCANS) --out $(OUT)

ui: setup ## Open the MLflow UI on this machine
	$(BIN)/malignancy ui

preflight: setup ## Check scans before spending compute: make preflight SCANS=...
	$(BIN)/malignancy check $(SCANS)

check: lint types ## All that CI runs: lint, types, import rules, quick and slow tests
	$(BIN)/pytest -q -m "not campaign"

test: setup ## The quick tests, under five minutes
	$(BIN)/pytest -q

lint: setup ## ruff and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup ## mypy --strict
	$(BIN)/mypy

campaign: setup ## The long fault, fuzz and accuracy campaigns
	$(BIN)/pytest -q -m campaign

bench: setup ## Benchmarks that need nothing but this repository
	$(BIN)/python benchmarks/backends.py
	$(BIN)/python benchmarks/scoring_scale.py --scans 20000

ablation: setup $(DEMO)/data/manifest.csv ## Sigmoid, softmax and hidden activations, on identical splits and seeds
	$(BIN)/python benchmarks/ablation.py

notebooks: setup ## Execute the notebooks
	$(BIN)/pytest -q --nbmake notebooks
