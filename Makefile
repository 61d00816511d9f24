# Everything here runs in .venv, which is made and brought up to date by itself. Settings from the environment:
#   PYTHON               the interpreter to make .venv with, 3.11 or newer (default: python3)
#   PIP_EXTRA_INDEX_URL  an extra index for pip, such as one that serves a CPU build of torch
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := test
.PHONY: venv docs check format test unit demo chaos bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@echo "Compiling (half a minute the first time) ..."
	$(BIN)/python -m models.arithmetic
	@touch $@

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site in build/site; a warning is an error.
docs: $(STAMP)
	$(BIN)/mkdocs build --quiet

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tests with a broker wait more than they compute: two halves that take about as long run beside each other, on brokers of their own.
HALF := tests/integration/test_security.py tests/integration/test_swap.py
test: $(STAMP)
	@log=$$(mktemp); $(BIN)/python -m pytest tests/chaos tests/unit tests/property $(HALF) >$$log 2>&1 & beside=$$!; \
	$(BIN)/python -m pytest --durations 10 tests/integration $(addprefix --ignore=,$(HALF)); rest=$$?; \
	wait $$beside; faults=$$?; cat $$log; rm -f $$log; exit $$((rest || faults))

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit tests/property

demo: $(STAMP)
	$(BIN)/recurd demo

chaos: $(STAMP)
	RECURD_CHAOS_KILLS=100 $(BIN)/python -m pytest -s -o faulthandler_timeout=3600 tests/chaos

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
