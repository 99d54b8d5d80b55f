# Everything a checkout needs: `make help` lists the targets. Python 3.11, git and make are all that must be there before.
PYTHON ?= python3
VENV ?= .venv
# Extra words for pytest: make test ARGS="tests/data -x"
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
LOG := $(VENV)/install.log
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt
PROJECT := .[sim,dev]

# $(call phase,NAME,COMMAND): one line on the screen, COMMAND's output in the log; a failure shows the log's end and
# keeps COMMAND's exit code.
phase = @echo "installing $(1)"; $(2) >> $(LOG) 2>&1 || { code=$$?; tail -n 20 $(LOG) >&2; \
	  echo "installing $(1) failed; all of pip's output is in $(LOG)" >&2; exit $$code; }

# Nothing phones home, no simulation installs packages or joins another one's Ray, one thread per worker.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export RAY_ADDRESS := local
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_OFFLINE := 1
export OMP_NUM_THREADS := 1
# Bytecode is kept even where the environment says not to: without it every process compiles torch anew, 20 s each.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install update resolve docs notebooks demo deploy-demo test test-slow kill-matrix gpu-check lint format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

install: $(STAMP)  ## create .venv with the pinned versions (the other targets do it when needed)

# Both only ask the package index: nothing is installed.
update: $(STAMP)  ## newest versions that pyproject.toml allows, into constraints.txt
	$(BIN)/python .ci/pins.py update

resolve: $(STAMP)  ## is there a wheel of every pin for other versions of Python?
	$(BIN)/python .ci/pins.py resolve 3.12 3.13

docs: $(DOCS)  ## the documentation site, into build/site; its links are checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python -m website.check build/site
	@echo "read it: $(BIN)/python -m http.server --directory build/site"

notebooks: $(STAMP)  ## run docs/notebooks anew, and keep their outputs in them
	$(BIN)/python -m website.notebooks

demo: $(STAMP)  ## a first run: compare strategies on a small long-tailed problem
	$(BIN)/fedimb demo

# Needs nginx, and the UCI heart-disease data below $FEDIMB_DATA_DIR; TO is the new folder.
TO ?= runs/deploy-demo
deploy-demo: $(STAMP)  ## a coordinator and four hospital nodes on this machine, start to finish
	$(BIN)/fedimb deploy demo --to $(TO)

# Tests that measure time run by themselves, the others two at a time; exit code 5 is "ARGS chose none of these".
test: $(STAMP)  ## the tests that take seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not alone" $(ARGS)
	$(BIN)/python -m pytest -m "alone and not slow" $(ARGS) || [ $$? -eq 5 ]

test-slow: $(STAMP)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(ARGS)

kill-matrix: $(STAMP)  ## kill runs at random moments, resume and compare them (an hour; continues where it ended)
	PYTHONPATH=tests/support $(BIN)/python tests/support/kill_matrix.py

gpu-check: $(STAMP)  ## compare runs on a GPU with runs on the CPU and time them (under ten minutes; needs CUDA)
	$(BIN)/python experiments/engine/gpu_check.py --to runs/gpu_check.csv

# The links fedimb/strategies, fedimb/clients and fedimb/configs are followed by mypy and skipped by ruff,
# so each file is checked once by each.
lint: $(STAMP)  ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/packaging/test_imports.py tests/packaging/test_floors.py

format: $(STAMP)  ## rewrite the sources in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and builds; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an install that was interrupted starts again from an empty .venv, a finished one is
# updated in place. pip comes first because its resolver is twice as fast as the one Python 3.11 brings;
# setuptools next to it because without build isolation the project itself installs with no network.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fedimb needs Python 3.11 or newer, and '$(PYTHON)' is not: name another, as in make install PYTHON=python3.11" >&2; exit 1; }
	@if test -f $@; then echo "updating $(VENV)"; else \
	  echo "creating $(VENV): some minutes, once"; $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $@
	@: > $(LOG)
	$(call phase,pip,$(PIP) pip setuptools)
	$(call phase,torch,$(PIP) torch)
	$(call phase,fedimb and its tools,$(PIP) --no-build-isolation -e "$(PROJECT)")
	@touch $@
	@echo "done; pip's output is in $(LOG)"

$(DOCS): $(STAMP)
	@rm -f $@
	$(call phase,what builds the site,$(PIP) --no-build-isolation -e ".[docs]")
	@touch $@
