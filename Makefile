# Few commands, all in the environment .venv that the first of them makes. `make help` lists them.

PYTHON ?= python3
# Two runs at a time at most: each trains on a core of its own and holds a model in memory.
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); [ "$$cores" -lt 2 ] && echo "$$cores" || echo 2)
# One more process of tests than cores: there is always one that waits for a kernel, a server or a disk.
PROCESSES ?= $(shell expr $(JOBS) + 1)

BIN := .venv/bin
READY := .venv/ready

# Empty means off. Packages are installed without byte code (--no-compile, most of it is never imported), so it
# must be written at first use: with this variable set in the caller's shell every kernel would compile
# torch and transformers anew.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help demo seeds test test-install test-lab test-study test-real shuffle soak lint lab notebooks clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "  PYTHON=python3.12 chooses the interpreter of a new .venv, JOBS=1 how many runs go at once"

# The stamp is the last thing written: an interrupted installation is started again from nothing.
$(READY): pyproject.toml constraints.txt hatch_build.py
	@echo "installing into .venv: about a minute, longer where a CUDA build of torch is downloaded"
	$(PYTHON) -m venv --clear .venv
	@# A second for a current pip saves a dozen: the one that comes with Python 3.11 resolves slowly.
	$(BIN)/pip install -qq --no-compile --upgrade pip
	$(BIN)/pip install -qq --no-compile -c constraints.txt -e ".[dev]"
	$(BIN)/python -m ipykernel install --sys-prefix --name safety-nb --display-name "safety-nb" > /dev/null
	@touch $@

demo: $(READY)  ## the miniature study: 5 amounts of safety data, one seed (minutes on a CPU)
	$(BIN)/safety-nb study params/tiny-study.yaml --jobs $(JOBS)

seeds: $(READY)  ## the same over three seeds, for intervals that cover the training
	$(BIN)/safety-nb study params/tiny-study-seeds.yaml --jobs $(JOBS)

# Tests that share what is dear stay in one process, in the order of tests/conftest.py: the long ones first.
test: $(READY)  ## the tests but for those below
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

test-install: $(READY)  ## the wheel, installed with all that it asks for into a bare environment, used from an empty folder
	$(BIN)/python -m pytest -m install tests/test_install.py

test-lab: $(READY)  ## reports with hostile text, and the widgets of a real JupyterLab, in a browser
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup -m lab tests/report tests/judge

test-study: $(READY)  ## the miniature shows the trade-off, in its whole study, and its other studies run
	$(BIN)/python -m pytest -m study tests/run/test_study.py

test-real: $(READY)  ## real language models, in the folders that SAFETY_NB_REAL_MODELS names
	$(BIN)/python -m pytest -m real tests/test_real_models.py

shuffle: $(READY)  ## the tests of `make test` three times, in random order
	for round in 1 2 3; do $(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup -p randomly || exit 1; done

soak: $(READY)  ## the long tests: runs killed at twenty moments, the whole study, coverage of the intervals, odd inputs (an hour)
	$(BIN)/python -m pytest -m soak

lint: $(READY)  ## style of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(READY)  ## JupyterLab on this folder
	$(BIN)/jupyter lab

notebooks: $(READY)  ## write the parameters cells of the notebooks from the schema
	$(BIN)/python -m safety_nb.run.parameter_cells

clean:  ## remove .venv and caches; outputs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
