# One file to drive relevo from a checkout; `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Real servers wait more than they work; those of one file are one after another.
BESIDE := -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo deb format check test-fast test test-long test-vm bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## set up the virtual environment in .venv

$(READY): pyproject.toml setup.py $(wildcard runtime/locale/*/LC_MESSAGES/*.po)
	@echo 'setting up $(VENV)' >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || deploy/demo/need-venv >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' >&2
	@touch $@

demo: $(READY) ## a host dies, its sites live on (ONCE=1|cut|freeze|shutdown: one fault, one line of JSON; STORE=etcd CONTROLLERS=3)
	@$(BIN)/relevo demo $(if $(ONCE),--once $(ONCE)) $(if $(STORE),--store $(STORE)) $(if $(CONTROLLERS),--controllers $(CONTROLLERS))

deb: $(READY) ## make dist/relevo_VERSION_amd64.deb, for Debian 12
	@$(BIN)/python -m deploy.deb

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test-fast: $(READY) ## unit tests, stories, properties, a sample of the simulation: under 2 minutes
	$(BIN)/pytest -n auto -m 'not integration and not vm and not patient' $(PYTEST)

test: $(READY) ## every test, real servers included, but the long ones: under 10 minutes
	$(BIN)/pytest $(BESIDE) -m 'not long and not vm' $(PYTEST)

test-long: $(READY) ## whole co-ops on etcd, the runbooks walked, a browser, a fuzzer: under 12 minutes
	$(BIN)/pytest $(BESIDE) -m 'long and not vm' $(PYTEST)

test-vm: $(READY) ## the real systemd and logind, in virtual machines (as root): about 40 minutes
	$(BIN)/pytest -m vm -o faulthandler_timeout=1800 tests/vm $(PYTEST) # the first makes the image

bench: $(READY) ## print every number that relevo promises (BENCH="failover --runs 30": one of them)
	$(BIN)/python -m bench $(BENCH)

clean: ## remove what `make` made
	rm -rf $(VENV) .cache
