# `make` lists the targets. Everything is installed into .venv, and only when its list changed.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
UV := uv==0.13.9

# Runs a command while holding a lock that dies with it: two makes at once install once.
LOCKED = mkdir -p .cache && $(PYTHON) -c 'import fcntl, os, sys; \
  lock = os.open(".cache/install.lock", os.O_CREAT | os.O_RDWR); \
  os.set_inheritable(lock, True); \
  fcntl.flock(lock, fcntl.LOCK_EX); \
  os.execvp(sys.argv[1], sys.argv[1:])'

.PHONY: help quickstart demo test test-fast lint results notebook bench constraints clean check-python install-run install-demo install-dev
.DELETE_ON_ERROR:

help:
	@echo 'make quickstart   install, train a small model, show where its results are'
	@echo 'make demo         open a trained network in the browser: no training, no data'
	@echo 'make test         run all tests; ARGS="-k resume" passes arguments to pytest'
	@echo 'make test-fast    run those that take seconds: 2 to 3 minutes on two cores'
	@echo 'make lint         ruff check, ruff format --check, basedpyright'
	@echo 'make results      write the tables and the picture of README and docs from results/'
	@echo 'make notebook     run notebooks/tour.ipynb and keep what it shows'
	@echo 'make bench        speed beside plain Flax, Keras and PyTorch, into results/benchmarks'
	@echo 'make constraints  pin the newest versions of what requirements*.txt pull in'
	@echo 'make clean        remove .venv and caches; runs/ stays'
	@echo 'PYTHON=python3.12 chooses the Python (3.11 to 3.13) of a new .venv.'

quickstart: install-run
	@$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart
	@echo 'Open runs/quickstart/report.html in a browser. Next, after `source .venv/bin/activate`:'
	@echo '  python main.py --config=configs/speedrun_cpu.py   # CIFAR-10, in minutes on a CPU'
	@echo '  python main.py --config=configs/final.py          # the best model of the report'
	@echo '  python main.py --mode=predict --workdir=runs/final cat.png   # what is on a picture'

demo: install-demo
	@$(BIN)/python main.py --mode=demo --workdir=pretrained/speedrun90 $(ARGS)

test: install-dev
	@$(PYTEST) $(ARGS)

test-fast: install-dev
	@$(PYTEST) -m 'not slow' $(ARGS)

lint: install-dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m basedpyright

results: install-run
	@$(BIN)/python -m tools.config_reference
	@$(BIN)/python -m tools.results
	@$(BIN)/python -m benchmarks.table

notebook: install-dev
	@$(BIN)/python -m tools.notebook

# About an hour on two cores that do nothing else.
bench: install-dev
	@$(BIN)/python -m benchmarks.run
	@$(BIN)/python -m benchmarks.run --networks=transfer_finetune \
	  --peers=keras-tensorflow,torch,torch-compile --output=results/benchmarks/step_transfer.json
	@$(BIN)/python -m benchmarks.startup
	@$(BIN)/python -m benchmarks.scaling
	@$(BIN)/python -m benchmarks.roofline
	@$(BIN)/python -m benchmarks.seeds
	@$(BIN)/python -m benchmarks.search
	@$(BIN)/python -m benchmarks.predict
	@$(BIN)/python -m benchmarks.export
	@$(BIN)/python -m benchmarks.table

# requirements.txt reads constraints.txt, so the old pins are set aside while the new ones are found.
constraints: check-python
	@$(LOCKED) $(MAKE) -s --no-print-directory $(BIN)/python
	@$(PIP_INSTALL) $(UV)
	@cp constraints.txt .cache/constraints.old && : > constraints.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	  --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt \
	  $(sort $(wildcard requirements*.txt)) \
	  || { cp .cache/constraints.old constraints.txt; exit 1; }

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache build *.egg-info
	find cifar_jax configs tests -name __pycache__ -type d -prune -exec rm -rf {} +

check-python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo 'error: $(PYTHON) not found; install Python 3.11, 3.12 or 3.13, or say PYTHON=...' >&2; exit 1; }

install-run: check-python
	@$(LOCKED) $(MAKE) -s --no-print-directory $(RUN_STAMP)

install-demo: check-python
	@$(LOCKED) $(MAKE) -s --no-print-directory $(DEMO_STAMP)

install-dev: check-python
	@$(LOCKED) $(MAKE) -s --no-print-directory $(DEV_STAMP)

# A stamp is written only after pip succeeded: what failed midway is tried again.
$(RUN_STAMP): requirements.txt requirements/run.txt constraints.txt | $(BIN)/python
	@echo 'Installing requirements.txt into $(VENV) (a few minutes the first time).'
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(DEMO_STAMP): requirements-demo.txt requirements/demo.txt $(RUN_STAMP)
	@echo 'Installing requirements-demo.txt into $(VENV) (a minute the first time).'
	@$(PIP_INSTALL) -r requirements-demo.txt
	@touch $@

$(DEV_STAMP): $(wildcard requirements*.txt requirements/*.txt) constraints.txt | $(BIN)/python
	@echo 'Installing requirements-dev.txt into $(VENV) (a few minutes the first time).'
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $(RUN_STAMP) $(DEMO_STAMP) $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo 'error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; say make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'error: $(PYTHON) has no venv module; on Debian or Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
