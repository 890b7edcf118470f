# make demo    the main job on simulated data, in minutes
# make test    the test suite
# make test-models   every family of language models against its own forward, in minutes
# make model-families   write docs/model-families.md by what that walk finds
# make test-browser   the report in a real browser (Debian: installs chromium, as root)
# make test-trl   exported rows score in TRL as here (installs TRL, in .venv-trl)
# make check   what CI checks besides the tests: format, lint, types
# make clean   remove what these made

PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/demo

.PHONY: demo test test-models model-families test-browser test-trl check clean

demo: .venv/installed
	$(BIN)/palate run examples/demo.yaml --out $(OUT) --overwrite $(DEMO_FLAGS)

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

test-models: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m models tests/models

model-families: .venv/installed
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m models.families --write

test-browser: .venv/installed-browser
	@command -v chromium >/dev/null || (apt-get update --quiet=2 && apt-get install --quiet=2 --yes chromium) || \
	  { echo "The browser tests drive chromium. Install it (Debian: apt-get install chromium, as root)."; exit 2; }
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser

test-trl: .venv-trl/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=src .venv-trl/bin/python -m pytest tests/peers

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf .venv .venv-trl runs sweeps build dist .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Palate needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv/installed-browser: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	@touch $@

# TRL beside what .venv holds, torch among it, which is read from there and stays as it is
.venv-trl/installed: .venv/installed tests/peers/trl.txt
	$(BIN)/python -m venv --clear .venv-trl
	@packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  own=$$(.venv-trl/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  echo "import site; site.addsitedir('$$packages')" > "$$own/palate.pth"
	.venv-trl/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/peers/trl.txt
	@touch $@
