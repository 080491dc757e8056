# make demo: install into .venv and run the demo.   make test: install and run the tests.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test gpu-test lint bench bench-report verification validation check-tools clean

VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
RUN := $(BIN)/thermosim
DEMO ?= demo
BENCH ?= --peers quick
RECORDS ?=

help:
	@echo "make demo   install into .venv and run the demo"
	@echo "make test   install with the test extra and run the tests"
	@echo "make gpu-test  run the tests of the CUDA path on this machine's GPU"
	@echo "make lint   ruff, mypy and the direction of imports"
	@echo "make bench  time the named cases on this machine, and peers if installed (BENCH=... for other words)"
	@echo "make bench-report  write docs/performance.md from the newest record of make bench"
	@echo "make verification  run all verification sections and write docs/verification.md"
	@echo "make validation  predict published experiments and write docs/validation.md"
	@echo "make clean  remove .venv and caches"

# The newest Python from 3.11 on; PYTHON=... chooses another one.
check-tools:
	@mkdir -p $(STAMPS); \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found="$$candidate"; break; fi; done; \
	if [ -z "$${found:-}" ]; then \
	  echo "thermosim: error: no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; fi; \
	echo "$$found" > $(STAMPS)/python; \
	for compiler in $${CXX:-} c++ g++ clang++; do \
	  if command -v "$$compiler" >/dev/null 2>&1; then exit 0; fi; done; \
	echo "thermosim: error: no C++ compiler was found; install g++ or clang++, or name one: make CXX=/path/to/compiler" >&2; exit 2

$(BIN)/python: | check-tools
	@"$$(cat $(STAMPS)/python)" -m venv $(VENV) || { \
	  echo "thermosim: error: cannot make $(VENV); install Python's venv module (Debian: python3-venv)" >&2; exit 2; }

# An editable install: reinstalled only when the packaging changes.
$(STAMPS)/installed: pyproject.toml | $(BIN)/python check-tools
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(STAMPS)/installed-test: pyproject.toml | $(BIN)/python check-tools
	@echo "installing with the test extra into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(STAMPS)/installed

demo: check-tools $(STAMPS)/installed
	@$(RUN) simulate output.directory=$(DEMO)
	@echo "open $(CURDIR)/$(DEMO)/report.html in a browser"

test: check-tools $(STAMPS)/installed-test
	@$(BIN)/python -m pytest -q

gpu-test: check-tools $(STAMPS)/installed-test
	@.ci/gpu-test $(BIN)/python

lint: check-tools $(STAMPS)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: check-tools $(STAMPS)/installed
	@$(RUN) bench $(BENCH)

bench-report: check-tools $(STAMPS)/installed
	@$(BIN)/python benchmarks/report.py $(RECORDS)

verification: check-tools $(STAMPS)/installed-test
	@$(BIN)/python tests/verification/document.py

validation: check-tools $(STAMPS)/installed-test
	@$(BIN)/python tests/validation/document.py

clean:
	rm -rf $(VENV) $(STAMPS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
