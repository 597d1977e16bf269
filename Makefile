# Everything a clone needs, one word each. `make` lists them. Each target does its own set-up and is safe to repeat.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install extras study paper test lint format typecheck bench clean
.DELETE_ON_ERROR:

help: ## List the targets
	@echo "Rankwise finds where a LoRA parameter budget pays off."
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target words; do \
		printf '%-18s %s\n' "$$target" "$$words"; done

install: $(STAMP) ## Make .venv with the pinned requirements and this package (PYTHON=python3.11 chooses another Python)

# Made again when a requirement changes. The stamp is the last thing written, so a broken installation is repeated.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: Python 3.11 or newer is needed, and $(PYTHON) is not that." \
			"Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing the pinned requirements into $(VENV). The first time this takes a few minutes: torch is large."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Installed. The command is $(BIN)/rankwise"

extras: $(STAMP) ## Add the optional parts to .venv: quantization, lm-evaluation-harness, trackers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-extras.lock

study: $(STAMP) ## Train the embedded study and write its report (FILE=studies/adaptive.yaml for another)
	@$(BIN)/rankwise study $(FILE)

paper: $(STAMP) ## Write the project's paper from the recorded studies, and build it where TeX is installed
	@$(BIN)/rankwise report paper/paper.yaml --recorded --pdf

test: $(STAMP) ## Run the tests (ARGS="-k budget" passes options to pytest)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## Check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Rewrite files in the project's format
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

typecheck: $(STAMP) ## Check types only
	@$(BIN)/mypy

bench: $(STAMP) ## Measure against Hugging Face's Trainer with PEFT (ARGS="--help" lists the options)
	@$(BIN)/python benchmarks/against_peft.py $(ARGS)

clean: ## Remove caches and build outputs; .venv, results and the ledger stay
	@rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
