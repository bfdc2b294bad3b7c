# The two commands of a fresh clone: make demo, make test. Only Python >= 3.11, pip and
# make are needed.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= demo
# The tests compare with transformers, PyTorch, PEFT and PyArrow. TEST_EXTRAS=dev leaves
# those out (PyTorch's default build for Linux brings gigabytes of CUDA); such tests skip
# then.
TEST_EXTRAS ?= dev,hf,data
# Of the tests; each holds up to 4 GB.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin

.PHONY: demo install install-test lint test test-slow

demo: install  ## train and evaluate the embedded default, then write its report
	$(BIN)/python launch.py run --config=configs/cheese_tiny.py --workdir=$(WORKDIR)

install: $(BIN)/.installed

install-test: $(BIN)/.installed-$(TEST_EXTRAS)

$(BIN)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(BIN)/.installed-$(TEST_EXTRAS): $(BIN)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(TEST_EXTRAS)]'
	touch $@

lint: install  ## the same checks as CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: install-test
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile

test-slow: install-test  ## browser, real models: run before a release
	$(BIN)/python -m pytest -m slow
