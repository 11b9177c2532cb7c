# `make help` lists the targets. Each one does the set-up it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
BIN := .venv/bin
PYTHON ?= python3
# As `antidote` asks for by itself (infra/memory.py): tests and benches run in processes of their own.
export GLIBC_TUNABLES ?= $(shell $(PYTHON) -m infra.memory)

.DEFAULT_GOAL := help
.PHONY: help setup services demo demo-scan test test-slow check bench gpu gpu-wheels faults hostile lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready ## make .venv from requirements.lock, with uv (itself from pip if missing)

.venv/ready: requirements.lock pyproject.toml
	command -v uv >/dev/null || $(PYTHON) -m pip install --quiet uv
	test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) .venv
	uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

SERVICES := radosgw ceph-mon ceph-osd chromium poppler-utils slurmctld slurmd slurm-client shellcheck openssl

services: ## install what the tests drive beside Python: Ceph's S3 gateway, Chromium, Slurm (Debian; needs root)
	@dpkg-query -W -f '$${db:Status-Abbrev}\n' $(SERVICES) 2>/dev/null | grep -c '^ii' | grep -qx $(words $(SERVICES)) && exit; \
	test "$$(id -u)" = 0 || { echo "make services installs Debian packages: run it as root" >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends $(SERVICES)

demo: setup ## the whole story on two cores: download, poison, pretrain, measure, cure, report
	PATH="$$PWD/$(BIN):$$PATH" infra/jobs/demo.sh

demo-scan: setup ## found, removed, gone: look for poison in the demo's pairs, leave it out, train anew, measure
	PATH="$$PWD/$(BIN):$$PATH" infra/jobs/demo-scan.sh

# Two and not as many as there are cores: every worker has a Ray of four CPUs, S3 servers and ranks of its own.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

test: setup ## the test suite without the slow part, on two cores (WORKERS=4: on four)
	$(PYTEST) -m "not slow and not gpu"

test-slow: setup ## only the slow tests
	$(PYTEST) -m "slow and not gpu"

check: setup ## format, lint, layers and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup ## measure speed; each script's last line is one JSON object
	for script in tests/bench/*.py; do $(BIN)/python $$script; done

DEVICE ?= cuda
FOLDER ?= gpu
WHEELS ?= gpu-wheels
export WHEELS

# Without `setup`: on a machine with a GPU there may be no network, and its own Python has torch.
gpu: ## what a GPU makes of it: tests and speed, resumable (DEVICE=cpu: tried on a CPU, tiny)
	PATH="$$PWD/$(BIN):$$PATH" DEVICE=$(DEVICE) infra/jobs/gpu.sh $(FOLDER)

gpu-wheels: ## a folder of the wheels that such a machine may lack (WHEELS=gpu-wheels)
	$(PYTHON) -m tests.gpu.wheels --out $(WHEELS)

lock: ## write requirements.lock anew (no index urls in it)
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra all --extra faiss-cpu --extra dev pyproject.toml --output-file requirements.lock

faults: setup ## print what each fault of an S3 server does to each kind of object
	$(BIN)/python -m tests.faults.table

hostile: setup ## print what becomes of hostile web answers and hostile tars
	$(BIN)/python -m tests.support.hostile_http
	$(BIN)/python -m tests.support.hostile_tars

clean: ## remove what the targets made, the environment too
	rm -rf .venv demo report gpu gpu-wheels .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
