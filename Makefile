# make demo    the main job on simulated data, in minutes
# make test    the test suite
# make check   what CI checks besides the tests: format, lint, types
# make clean   remove what these made

PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: demo test check clean

demo: .venv/installed
	$(BIN)/palate run examples/demo.yaml --out $(OUT) --overwrite $(DEMO_FLAGS)

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf .venv runs build dist .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Palate needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
