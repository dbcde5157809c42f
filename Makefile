PYTHON ?= python3
BIN := .venv/bin
SHAPES := --jaxtyping-packages=fedjax_lite,beartype.beartype # of arguments and results, as annotated: a fifth of the CPU seconds
QUICK := $(SHAPES) -m quick tests/test_structure.py tests/contract fedjax_lite
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0

.PHONY: run test test-deep quick lowest lint docs clean

run: .venv/installed
	$(BIN)/fedjax-lite run configs/quickstart.toml

test: .venv/installed-test
	$(PYTEST)

test-deep: .venv/installed-test
	$(PYTEST) $(SHAPES) -m deep

quick: .venv/installed-test
	$(PYTEST) $(QUICK)

lowest: # the quick tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/support/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt --editable ".[test]"
	.venv-lowest/bin/python -m pytest $(QUICK)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-docs # the site, in .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

clean:
	rm -rf .venv .venv-lowest .cache

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@ .venv/installed

.venv/installed-docs: .venv/installed-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@
