# Each target sets itself up: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
THREADS := $(shell nproc 2>/dev/null || echo 2)
# More options of pip install, such as another index; pip's own environment variables count too (PIP_EXTRA_INDEX_URL,
# PIP_CONSTRAINT).
PIP_ARGS ?=

.PHONY: setup browser demo smoke quick test lint types docs docs-tables bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "Installing ssdir and all that its tests need into $(VENV): 7 GB, 5 of them torch for NVIDIA GPUs."
	@echo "This takes 3 to 10 minutes, as fast as the network and the disk are, and is done once."
	@echo "Without a GPU, save 4 GB: make setup PIP_ARGS='--extra-index-url ADDRESS', with the address that the"
	@echo "installation selector on PyTorch's website shows for pip and CPU."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	touch $(STAMP)
	@echo "Installed. To use the command ssdir in this shell: . $(VENV)/bin/activate"

# Debian's and Ubuntu's; what drives the studio in its tests.
browser:
	test -x /usr/bin/chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

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

# One process per core, with one thread each: the networks of the tests are too small for more threads.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses $(THREADS) --maxprocesses 8 --dist loadfile

# All tests that take less than a second or two.
quick: setup
	$(PYTEST) -m "not slow"

test: lint types
	$(PYTEST)

# The tables of README and docs, from results/.
docs-tables: setup
	$(VENV)/bin/python tools/docs_tables.py

docs: setup
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/mkdocs build --strict

bench: setup
	$(VENV)/bin/python benchmarks/speed.py --out results/bench/speed.json --force
	$(VENV)/bin/python benchmarks/precision.py --out results/bench/precision.json --force
	$(VENV)/bin/python benchmarks/models.py --out results/bench/models.json --chart docs/images/cost.png --force

clean:
	rm -rf $(VENV) demo runs build dist
