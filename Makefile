# Targets in pipeline order; `make help` lists them.
VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready
ROSTER ?= starter
BENCH  ?= engine generation
OUT    ?= runs
RECIPE ?= cpu
FOLDS  ?= 5

# Tests start hundreds of processes, whose modules are then compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup organisms introspection report publish bench schemas test-fast test soak check
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

setup: $(READY) ## create .venv with pinned dependencies

$(READY): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

organisms: $(READY) ## build a roster, from corpora to release (ROSTER=starter OUT=runs)
	$(VENV)/bin/bestiary build $(ROSTER) --out $(OUT)

report: $(READY) ## write the last build's results and transcripts as pages (OUT=runs)
	$(VENV)/bin/bestiary report $(OUT)/report --out $(OUT)

introspection: ROSTER = mini
introspection: $(READY) ## build a roster and measure an introspection adapter on it (ROSTER=mini RECIPE=cpu FOLDS=5)
	$(VENV)/bin/bestiary build $(ROSTER) --out $(OUT)
	$(VENV)/bin/bestiary introspect evaluate $(OUT)/release --recipe $(RECIPE) --folds $(FOLDS) --out $(OUT)
	$(VENV)/bin/bestiary introspect report --release $(OUT)/release --out $(OUT)

publish: $(READY) ## push the release to the Hub (DATASET_REPO=user/name MODEL_REPO=user/name)
	$(VENV)/bin/bestiary publish $(DATASET_REPO) $(MODEL_REPO) --release $(OUT)/release

bench: $(READY) ## run benchmarks, each also to a JSON file (BENCH="engine generation introspection backend gpu contract line starter validate release" ARGS=--quick)
	for name in $(BENCH); do \
	  $(PYTHON) bench/$$name.py --json $(OUT)/bench/$$name.json $(ARGS) || exit 1; \
	done

schemas: $(READY) ## write the JSON Schemas for editors, the prompt pages, the reference, and the catalogue
	$(VENV)/bin/bestiary schemas
	$(VENV)/bin/bestiary prompts
	$(VENV)/bin/bestiary reference
	$(VENV)/bin/bestiary catalogue

test-fast: $(READY) ## run the tests that take little time, while developing
	$(PYTHON) -m pytest --fast -m 'not soak' -n 2 --dist loadfile

test: $(READY) ## run the test suite
	$(PYTHON) -m pytest -m 'not soak' -n 3 --dist loadfile --no-loadscope-reorder

soak: $(READY) ## run the tests that take longer
	$(PYTHON) -m pytest -m soak

check: $(READY) ## run ruff, mypy, and bestiary validate
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/bestiary validate
