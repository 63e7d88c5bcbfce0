# Two commands matter: `make study` and `make test`. Both create .venv and install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: study test test-slow check docs format lab clean
.DEFAULT_GOAL := study

study: .venv/.study
	$(BIN)/python -m sketchvar run $(ARGS)

test: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: .venv/.test
	$(BIN)/mkdocs serve --open

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: .venv/.test
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.study: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing sketchvar into .venv (once; a few minutes on a slow line) ..."
	$(PIP) --editable .
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing sketchvar with its test tools into .venv (once; a few minutes on a slow line) ..."
	$(PIP) --editable ".[dev,notebooks]"
	@touch $@ .venv/.study
