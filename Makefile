# Everything here runs in .venv, which is made and brought up to date by itself. Settings from the environment:
#   PYTHON               the interpreter to make .venv with, 3.11 or newer (default: python3)
#   PIP_EXTRA_INDEX_URL  an extra index for pip, such as one that serves a CPU build of torch
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := test
.PHONY: advisories hashes venv docs check format test unit demo chaos bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@echo "Compiling (half a minute the first time) ..."
	$(BIN)/python -m models.arithmetic
	$(BIN)/python -m daemon.pipeline
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

# Tests with a broker wait more than they compute: three parts that take about as long run beside each other, on brokers of their own.
FAULTS := tests/chaos tests/integration/test_security.py tests/integration/test_swap.py
UNITS := tests/unit tests/property tests/integration/test_retrain.py tests/integration/test_refusals.py tests/integration/test_page.py
test: $(STAMP)
	@logs=$$(mktemp -d); $(BIN)/python -m pytest $(FAULTS) >$$logs/faults 2>&1 & faults=$$!; \
	$(BIN)/python -m pytest $(UNITS) >$$logs/units 2>&1 & units=$$!; \
	$(BIN)/python -m pytest --durations 10 tests/integration \
		$(patsubst %,--ignore=%,$(filter tests/integration/%,$(FAULTS) $(UNITS))); code=$$?; \
	wait $$units || code=1; wait $$faults || code=1; cat $$logs/units $$logs/faults; rm -r $$logs; exit $$code

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit tests/property

demo: $(STAMP)
	$(BIN)/recurd demo

chaos: $(STAMP)
	RECURD_CHAOS_KILLS=100 $(BIN)/python -m pytest -s -o faulthandler_timeout=3600 tests/chaos

bench: $(STAMP)
	$(BIN)/python -m benchmarks

advisories:
	@made=$$(mktemp -d); $(PYTHON) -m venv $$made && $$made/bin/python -m pip install --quiet pip-audit \
		&& $$made/bin/pip-audit --strict --requirement constraints-hashed.txt --require-hashes --disable-pip; code=$$?; rm -r $$made; exit $$code

hashes: $(STAMP)
	@report=$$(mktemp); $(BIN)/python -m pip install --dry-run --ignore-installed --no-deps --quiet --report $$report -r constraints.txt \
		&& $(BIN)/python deploy/pin_hashes.py $$report >constraints-hashed.txt; code=$$?; rm $$report; exit $$code

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
