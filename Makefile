# From a clean clone, `make book` and `make test` do everything: they need git, make and Python 3.11.
#
#   PROFILE=smoke|quick|full   size of the experiments (book, reproduce)
#   PYTHON=/path/to/python     interpreter that makes .venv
#   TORCH_INDEX=URL            where to take PyTorch from: the CPU wheel index named on PyTorch's own install page

PROFILE ?= quick
# The first of these that runs and is new enough.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,$(shell $(p) -c 'import sys; sys.version_info < (3, 11) or print("$(p)")' 2>/dev/null)))
TORCH_INDEX ?=
WORKERS ?= 2
LAB_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH = $(shell sed -n 's/^torch==.*/&/p' requirements.lock)

# Outputs are compared on a processor like that of the stored ones; elsewhere the notebooks must run.
NBVAL = $(shell $(BIN)/python -m book.processor)

export OMP_NUM_THREADS ?= 1
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup test lint format book pages publish refresh lab reproduce bench clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  PROFILE=smoke|quick|full (now $(PROFILE)), PYTHON=..., TORCH_INDEX=... : see the head of the Makefile"

setup: $(STAMP) ## .venv with adi-lite and everything in requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@p='$(PYTHON)'; [ -n "$$p" ] && "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: ADI-lite needs Python 3.11 or newer; install it, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "== making $(VENV) with $$('$(PYTHON)' --version): some $$(grep -c == requirements.lock) packages, a few minutes"
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(PIP) --version >/dev/null 2>&1 \
	  || '$(PYTHON)' -m venv --clear $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2; exit 2; }
	$(if $(TORCH_INDEX),$(PIP) install --no-deps --index-url '$(TORCH_INDEX)' '$(TORCH)')
	$(PIP) install -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@

test: setup lint ## lint, the tests, then every notebook against its stored outputs
	$(BIN)/python -m pytest -n $(WORKERS) tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(NBVAL) notebooks

lint: setup ## ruff, check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## ruff, mending what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

book: setup ## run the notebooks at PROFILE and build the book into _build/html
	$(BIN)/python -m book.build --profile $(PROFILE)

pages: setup ## build the book from the committed pages, running nothing
	$(BIN)/python -m book.build --pages-only

publish: setup ## run the notebooks at the full profile into book/results, the committed pages
	$(BIN)/python -m book.build --profile full --publish

refresh: setup ## run the notebooks in place at the smoke profile: new stored outputs for the tests
	$(BIN)/python -m book.build --refresh

lab: setup ## open the notebooks in Jupyter Lab
	$(BIN)/jupyter lab --notebook-dir notebooks $$([ "$$(id -u)" = 0 ] && echo --allow-root) $(LAB_ARGS)

reproduce: setup ## every table of the paper at PROFILE, on the terminal
	$(BIN)/adi-lite reproduce --profile $(PROFILE)

bench: setup ## speed and memory, beside the baseline loop
	$(BIN)/python -m benchmarks

clean: ## remove what is built; .venv, the runs and the downloaded data stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
