# `make demo` and `make test` are all that a fresh machine needs: Python 3.11 to 3.13 and a C++ compiler.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-report

.PHONY: help demo test lint unit slow systems clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.demo ## install, then the whole way on real data: four targets, a report
	$(BIN)/edgemix demo --out $(OUT) --force

test: $(VENV)/.test ## install what tests need, then lint and tests
	tests/install_system_packages.sh
	$(MAKE) lint unit

lint: $(VENV)/.test ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.test ## the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

slow: $(VENV)/.test ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

systems: $(VENV)/.test ## measure what the matrix of systems lacks: all of it takes hours
	$(BIN)/edgemix systems --run --jobs 2

clean: ## remove what the other targets made
	rm -rf $(VENV) $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.demo: pyproject.toml constraints.txt
	tests/install_python.sh $(VENV) all
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	tests/install_python.sh $(VENV) all,test,dev
	@touch $@ $(VENV)/.demo
