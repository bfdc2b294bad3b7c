# The two commands of a fresh clone: make demo, make test. Only Python >= 3.11, pip and
# make are needed.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= demo
BIN := $(VENV)/bin

.PHONY: demo install lint test test-slow

demo: install  ## train and evaluate the embedded default, then write its report
	$(BIN)/python launch.py run --config=configs/cheese_tiny.py --workdir=$(WORKDIR)

install: $(BIN)/.installed

$(BIN)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: install  ## the same checks as CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: install
	$(BIN)/python -m pytest

test-slow: install  ## browser, real models: run before a release
	$(BIN)/python -m pytest -m slow
