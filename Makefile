# `make run` and `make test` set up what they need in .venv, and reuse it.
# Needed beforehand: Python 3.11, make, a network.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/.installed
IMAGE ?= darkroom
HOSTING_IMAGE ?= darkroom-hosting

.DEFAULT_GOAL := help
.PHONY: help setup run test coverage test-slow test-long lint format docs ui tvm lock image image-hosting clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create or update .venv

run: setup  ## the main job on the embedded digits; ARGS="--data FOLDER" and so on
	$(BIN)/python run.py --stack local $(ARGS)

test: setup  ## the fast suite, in parallel
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup  ## what takes seconds
	$(PYTEST) -m "slow and not long" $(ARGS)

test-long: setup  ## what takes minutes
	$(PYTEST) -m long $(ARGS)

coverage: setup  ## the fast suite, and which lines it reaches; fails below pyproject.toml's floor
	$(PYTEST) -m "not slow" --cov --cov-report=term $(ARGS)

lint: setup  ## ruff, mypy, and what nothing reaches
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m checks.unreached

format: setup  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## write docs/configuration.md and the table of docs/rules.md from the code
	$(BIN)/python docs/configuration_reference.py
	$(BIN)/python docs/rules_reference.py

ui: setup  ## MLflow on the runs so far
	$(BIN)/python run.py ui

tvm: .venv-tvm/.installed  ## Apache TVM in an environment of its own, for compilation.tvm

lock: $(BIN)/uv  ## resolve pyproject.toml anew into the locks; ARGS=--upgrade
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --quiet $(ARGS) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra train --extra zenml --extra aws \
	    --extra sagemaker --extra debug --universal --python-version 3.11 --constraints requirements.lock \
	    --generate-hashes --no-header --no-annotate --quiet -o requirements-image.lock
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	    --constraints requirements.lock \
	    --generate-hashes --no-header --no-annotate --quiet -o requirements-hosting.lock
	$(BIN)/uv pip compile requirements-tvm.in --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --quiet $(ARGS) -o requirements-tvm.lock

image:  ## build the container image by Docker; IMAGE=name:tag, ARGS for docker build
	docker build --file infrastructure/Dockerfile --tag $(IMAGE) $(ARGS) .

image-hosting:  ## build the small image that only serves; HOSTING_IMAGE=name:tag
	docker build --file infrastructure/Dockerfile.hosting --tag $(HOSTING_IMAGE) $(ARGS) .

clean:  ## remove the environment and everything runs have written
	rm -rf .venv .venv-tvm .darkroom

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "Darkroom needs Python 3.11: install it, or name it by PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    "$$(sed -n 's/^\(uv==[^ ;]*\).*/\1/p' requirements.lock)"

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/uv
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv-tvm/.installed: requirements-tvm.lock | $(BIN)/uv
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) .venv-tvm
	VIRTUAL_ENV=.venv-tvm $(BIN)/uv pip sync --quiet --require-hashes requirements-tvm.lock
	@touch $@
