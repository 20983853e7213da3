# `make demo`  sets everything up, starts Clary and runs examples/quickstart.py against it.
# `make test`  runs the whole test suite: style, types, layers, unit, wire, crash tests.
# `make test-fast`  the part that ends within a minute or two.

PYTHON ?= python3
VENV ?= .venv
CACHE ?= .cache
BIN := $(VENV)/bin

.PHONY: demo test test-fast lint docs clean

demo: $(VENV)/.ready $(CACHE)/environments/quickstart/.ready
	@SAGEMAKER_SUPPRESS_V2_WARNING=1 $(BIN)/python -m clary.clients.demo $(CACHE)/environments/quickstart/bin/python examples/quickstart.py

test: lint $(VENV)/.ready-test
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGUMENTS)

test-fast: lint $(VENV)/.ready-test
	@$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" $(PYTEST_ARGUMENTS)

lint: $(VENV)/.ready-test
	@$(BIN)/ruff format --check --quiet . || { echo "Run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(CACHE)/lint-imports.txt || { cat $(CACHE)/lint-imports.txt; exit 1; }

docs: $(VENV)/.ready-docs
	@$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Clary needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Install Python's venv module (Debian: apt-get install python3-venv)."; exit 1; }

$(VENV)/.ready: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Clary into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(VENV)/bin/python
	@echo "Installing Clary and what its tests need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@mkdir -p $(CACHE)
	@touch $(VENV)/.ready $@

$(VENV)/.ready-docs: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# The client has an environment of its own, as a user's would: the SDK's pins are not ours.
$(CACHE)/environments/quickstart/.ready: examples/requirements.txt
	@echo "Installing the SageMaker SDK for the example (once) ..."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement examples/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) $(CACHE) .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build
