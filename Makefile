# Two commands do everything: `make demo` and `make test`. Both make .venv and install on first use;
# once installed, neither needs the network.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2 # each computes with one thread; a file's tests stay together

.PHONY: demo test check findings docs wheel bench torture install format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "resnet-cli needs Python 3.11 or newer; try make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[fast]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[fast,dev]'
	@touch $@

# The main job on the embedded data: train, delete each unit, gradient by path length.
demo: $(VENV)/.installed
	$(BIN)/resnet-cli train quickstart
	$(BIN)/resnet-cli lesion --blocks 1
	$(BIN)/resnet-cli paths --exact

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

# While working: what finds most mistakes in a minute and a half.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile -m "not slow"

# The tables of README.md and docs/ that are written from results/.
findings: $(VENV)/.installed
	$(BIN)/python -m resnet_cli.report.findings

# The documentation as a site, in site/; a warning is an error.
docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# Speed and memory next to plain PyTorch code; the machine should have nothing else to do.
bench: $(VENV)/.installed
	$(BIN)/resnet-cli bench --out results/bench

# One file with everything: the experiments, the bundled weights and the committed results.
wheel: $(VENV)/.installed-dev
	$(BIN)/hatchling build --target wheel

# Faults at random moments of whole commands; what is left after each is run again.
torture: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/training/torture.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
