PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On Linux without a GPU, `make ... TORCH_INDEX=https://download.pytorch.org/whl/cpu` fetches the
# small CPU build of torch instead of the CUDA one.
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
TESTFLAGS ?= -m "not slow and not gpu" -n auto --dist loadfile

.PHONY: quickstart install install-dev test test-slow lint format type docs pictures bench clean

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.user: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.user

install: $(VENV)/.user
install-dev: $(VENV)/.dev

quickstart: install  ## train, evaluate and film POGO on Nav2D
	$(BIN)/gcrl quickstart

test: install-dev  ## everything but slow and gpu tests
	$(BIN)/python -m pytest $(TESTFLAGS)

test-slow: install-dev
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install-dev
	$(BIN)/mypy

docs: install  ## tables of the README from the code
	$(BIN)/python docs/tables.py

pictures: install  ## frames and films of docs/environments.md
	$(BIN)/python docs/pictures.py

bench: install-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
