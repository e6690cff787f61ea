# Two commands: `make run` serves real rankings, `make test` checks everything. Both set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUNDLE ?= artifacts/bundles/demo
PORT ?= 8000

.PHONY: help setup run test check lock openapi format clean

help:
	@echo "make run     build the demo bundle if there is none, and serve it on http://127.0.0.1:$(PORT)"
	@echo "make test    every check and every test"
	@echo "make setup   only make $(VENV) with $(BIN)/adrank"
	@echo "make check   lint, types, import rules"
	@echo "make lock    pin what the images install, by hash"
	@echo "make openapi write docs/openapi.json anew"
	@echo "make format  let ruff rewrite what it can"
	@echo "make clean   remove $(VENV), artifacts and caches"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "adrank needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[cpu,s3,offline,loadtest,dev]"
	@touch $@

setup: $(VENV)/.installed

run: setup
	$(if $(filter artifacts/bundles/demo,$(BUNDLE)),@test -f $(BUNDLE)/manifest.json || $(BIN)/adrank demo)
	$(BIN)/adrank serve --bundle $(BUNDLE) --port $(PORT)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One process more than there are cores: tests of servers wait much of their time. On two cores 11:40 instead of 13:38 minutes.
test: check
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(min(os.cpu_count() + 1, 8))') --dist worksteal

lock: setup
	for extras in "cpu s3" "gpu s3" outcomes loadtest; do $(BIN)/uv pip compile pyproject.toml $$(printf -- '--extra %s ' $$extras) --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --output-file deploy/requirements/$${extras%% *}.txt; done

openapi: setup
	ADRANK_UPDATE_DOCS=1 $(BIN)/python -m pytest tests/docs/test_openapi_document.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
