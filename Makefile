# Each target does its own set-up: a virtual environment in .venv, with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= demo-output
# Two workers, one thread each (tests/conftest.py): more only help on more cores, at half a gigabyte each.
PYTEST_ARGS ?= -n 2

.PHONY: help demo test lint ruff types bench clean
help:
	@echo "make demo    restore a real photograph from camera shake; pictures in $(DEMO_DIR)/"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff and pyright"
	@echo "make bench   the benchmarks with their peers, one file a claim; then docs/performance.md"

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,plot,test]'
	touch $@

$(VENV)/.lint-ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,plot,test,lint]'
	touch $@

$(VENV)/.bench-ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,plot,test,bench]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/convpinv demo $(DEMO_DIR)

test: $(VENV)/.ready
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: types ruff

ruff: $(VENV)/.lint-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint-ready
	$(BIN)/pyright

# What to run, and how: make bench BENCH_ARGS="--quick prepared_circular"
bench: $(VENV)/.bench-ready
	$(BIN)/python benchmarks/run_all.py $(BENCH_ARGS)

clean:
	rm -rf $(VENV) $(DEMO_DIR) build dist
