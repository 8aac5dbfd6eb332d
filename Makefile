# Each target sets itself up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
THREADS := $(shell nproc 2>/dev/null || echo 2)

.PHONY: setup demo smoke test lint types check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: setup
	$(VENV)/bin/ssdir demo --out demo --force

smoke: setup
	$(VENV)/bin/ssdir reproduce all --scale smoke --out build/reproduce --runs build/reproduce/runs

lint: setup
	$(VENV)/bin/ruff check src tests benchmarks tools
	$(VENV)/bin/ruff format --check src tests benchmarks tools
	$(VENV)/bin/lint-imports

types: setup
	$(VENV)/bin/mypy

test: lint types
	$(VENV)/bin/python -m pytest

bench: setup
	$(VENV)/bin/python benchmarks/speed.py --out results/bench/speed.json --force

clean:
	rm -rf $(VENV) demo runs build dist
