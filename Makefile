# Two commands do everything: `make demo` and `make test`. Both create .venv and install the program
# on first use; after that, neither needs the network.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2 # each uses one thread; the tests of a file run in the same process

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

# The main measurements on the embedded data: train, delete each unit, gradient by path length.
demo: $(VENV)/.installed
	$(BIN)/resnet-cli train quickstart
	$(BIN)/resnet-cli lesion --blocks 1
	$(BIN)/resnet-cli paths --exact

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

# For use during development: finds most mistakes in a minute and a half.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile -m "not slow"

# Write the tables of README.md and docs/ that are generated from results/.
findings: $(VENV)/.installed
	$(BIN)/python -m resnet_cli.report.findings

# The documentation as a site, in site/; a warning is an error.
docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# Speed and memory compared with plain PyTorch code; the machine should be otherwise idle.
bench: $(VENV)/.installed
	$(BIN)/resnet-cli bench --out results/bench

# One file with the program, the experiments, the bundled weights and the committed results.
wheel: $(VENV)/.installed-dev
	$(BIN)/hatchling build --target wheel

# Inject faults at random moments of whole commands, and run each command again afterwards.
torture: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/training/torture.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
