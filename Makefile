# The two commands of a fresh clone: make demo, make test. Only Python >= 3.11, pip and
# make are needed.
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= demo
# The tests compare with transformers, PyTorch, PEFT and PyArrow, and use gcsfs.
# TEST_EXTRAS=dev leaves those out (PyTorch's default build for Linux brings gigabytes of
# CUDA); such tests skip then.
TEST_EXTRAS ?= dev,hf,data,gcs
# Of the tests; each holds up to 4 GB.
TEST_PROCESSES ?= 2
STUDIES ?= msm_cheese msm_values msm_philosophy token_efficiency spec_science attribution \
  framing anti_spec sdf negation_neglect poisoning cot_monitorability out_of_context \
  disclosure alternatives stage_order
# Processes that share the seeds of a study. Two studies at once on two cores:
# make -j2 studies WORKERS=1
WORKERS ?= 2
STUDY_TARGETS := $(addprefix study-,$(STUDIES))
BIN := $(VENV)/bin

.PHONY: demo install install-test lint studies test test-slow tiny-world $(STUDY_TARGETS)

demo: install  ## train and evaluate the embedded default, then write its report
	$(BIN)/python launch.py run --config=configs/cheese_tiny.py --workdir=$(WORKDIR)

studies: $(STUDY_TARGETS)  ## every study of the literature in the tiny world

tiny-world: install  ## what all of them begin with
	$(BIN)/python launch.py run --config=configs/tiny_world.py --workdir=models/tiny_world

$(STUDY_TARGETS): study-%: tiny-world  ## one of them: make study-sdf
	@echo "== $*"
	JAX_COMPILATION_CACHE_DIR=$(CURDIR)/studies/.xla_cache $(BIN)/python launch.py run \
	  --config=configs/$*.py:tiny --workdir=studies/$* --config.num_workers=$(WORKERS)

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
