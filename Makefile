# Every target sets up its own environment first: a machine with Python 3.11 and nothing else is enough.
#   make demo    compile a pretrained model, run it, show what was chosen
#   make check   format, lint, types and the fast tests (under 2 minutes)
#   make test    lint, types and every test (under 25 minutes on 2 cores)
#   make conformance  ONNX's backend suite on the CPU; writes spec/conformance.md and its results
#   make fuzz    the property tests on fresh examples, many of them
#   make format  rewrite the sources in the project's format
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo check lint test conformance fuzz format clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.tcc-installed
JOBS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@sed -n 's/^#   //p' Makefile

# The first interpreter that is new enough and can really make an environment (a bare Debian python3 or an
# inactive version-manager shim cannot). PYTHON=... on the command line goes first.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13 /usr/bin/python3; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  rm -rf $(VENV).part; \
	  if "$$python" -m venv $(VENV).part >/dev/null 2>&1; then rm -rf $(VENV) $(VENV).part; "$$python" -m venv $(VENV); exit 0; fi; \
	done; \
	rm -rf $(VENV).part; \
	echo "make: no Python >= 3.11 with the venv module was found; name one with make PYTHON=/path/to/python3" >&2; exit 1

$(STAMP): pyproject.toml constraints.txt requirements-models.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt pip hatchling editables
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps -r requirements-models.txt
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m benchmarks.demo

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

check: lint
	$(BIN)/python -m pytest -n $(JOBS) -q -m "not slow"

test: lint
	$(BIN)/python -m pytest -n $(JOBS) -q

conformance: $(STAMP)
	$(BIN)/python -m tests.conformance.report --write --processes $(JOBS)

fuzz: $(STAMP)
	TCC_HYPOTHESIS=fuzz $(BIN)/python -m pytest -n $(JOBS) -q $$(grep -rl --include='test_*.py' hypothesis tests)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist .pytest_cache .ruff_cache
