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
# One process a usable core (tests/conftest.py); PARALLEL= runs the tests one after the other.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
DETECTOR := models:/malignancy-detector@champion
CLASSIFIER := models:/malignancy-demo-find@champion

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo demo-find train evaluate score ui preflight docs check test lint types campaign mutation bench ablation notebooks

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/.done ## Create .venv and install what running needs, pinned

$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@echo "installing into $(VENV): torch, MONAI, MLflow and what they need; once, about a minute and 1.8 GB on disk"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch
	@echo "torch is in; now the rest"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@echo "installed: $$(du -sm $(VENV) | cut -f1) MB in $(VENV)"
	@touch $@

setup-dev: $(VENV)/.dev ## And what tests, linters, Ray and the other extras need

$(VENV)/.dev: $(VENV)/.done
	@echo "installing what tests need into $(VENV): linters, Ray, browsers' drivers, oracles; once, a minute or more"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@echo "installed: $$(du -sm $(VENV) | cut -f1) MB in $(VENV)"
	@touch $@

$(DEMO)/data/manifest.csv: | setup
	$(BIN)/malignancy demo-data $(DEMO)/data

demo: setup $(DEMO)/data/manifest.csv ## The whole pipeline on the embedded dataset, offline, in minutes
	$(BIN)/malignancy train configs/demo.yaml
	$(BIN)/malignancy score $(MODEL) $(DEMO)/data/unlabelled.csv --out $(DEMO)/scores || [ $$? -eq 1 ]  # 1: some cases were rejected
	@cat "$$(ls -td $(DEMO)/runs/*/summary.txt | head -1)" $(DEMO)/scores/summary.txt
	@echo "look further: make ui, the report named above, $(DEMO)/scores/scores.csv"

$(DEMO)/find/scans.csv: | setup
	$(BIN)/malignancy demo-data $(DEMO)/find --whole-scans 400

demo-find: setup $(DEMO)/find/scans.csv ## Whole scans: find the lesions, then score each one; simulated, offline
	$(BIN)/malignancy train configs/demo_find.yaml
	$(BIN)/malignancy train configs/demo_find_classifier.yaml
	out=$(DEMO)/found-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/malignancy evaluate $(DETECTOR) $(DEMO)/find/scans.csv --classifier $(CLASSIFIER) --out $$out/report && \
	$(BIN)/malignancy score $(CLASSIFIER) $(DEMO)/find/test_scans.csv --find $$out/report/detector --out $$out/scores || [ $$? -eq 1 ]  # 1: some candidates were rejected

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

docs: setup-dev ## The documentation site, into docs/_build/html
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "look at docs/_build/html/index.html"

check: lint types ## All that CI runs: lint, types, import rules, quick and slow tests
	$(BIN)/pytest -q $(PARALLEL) -m "not campaign"

test: setup-dev ## The quick tests, about ten minutes on 2 cores
	$(BIN)/pytest -q $(PARALLEL)

lint: setup-dev ## ruff and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup-dev ## mypy --strict
	$(BIN)/mypy

campaign: setup-dev ## The long fault, fuzz and accuracy campaigns
	$(BIN)/pytest -q -m campaign

mutation: setup-dev ## Break the code in small ways, one at a time: do the tests notice?
	$(BIN)/python benchmarks/mutation.py

bench: setup-dev ## Benchmarks that need nothing but this repository
	$(BIN)/python benchmarks/backends.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/scoring_scale.py --scans 20000

ablation: setup-dev $(DEMO)/data/manifest.csv ## Sigmoid, softmax and hidden activations, on identical splits and seeds
	$(BIN)/python benchmarks/ablation.py

notebooks: setup-dev ## Run the notebooks and store their outputs
	$(BIN)/python tools/run_notebooks.py
