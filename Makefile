PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0

.PHONY: run test test-deep quick lint clean

run: .venv/installed
	$(BIN)/fedjax-lite run configs/quickstart.toml

test: .venv/installed-test
	$(PYTEST)

test-deep: .venv/installed-test
	$(PYTEST) -m deep

quick: .venv/installed-test
	$(PYTEST) -m quick tests/test_structure.py tests/contract fedjax_lite

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .cache

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@ .venv/installed
