# Every task installs what it needs first (tools/setup.sh) and reuses what is there.
# The two to know: make demo, make test.

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
# Started in the background of a script, a process has Ctrl-C ignored, and so have the programs that the suite sends it to.
PYTEST := env --default-signal=INT $(PYTHON) -m pytest
# More or other arguments for pytest:  make test ARGS="-k breaker -x"
ARGS ?=
# Processes that share the suite, a file each at a time. Most tests wait more than they work, so twice the cores pays.
# In the order of names: sorted by their number of tests, the slow files with few would all come last.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
DEMO_SECONDS ?= 20

.DEFAULT_GOAL := help
.PHONY: help setup demo test asan bench bench-peers bench-filters dist clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install: Debian packages (as root), .venv, the compiled package; leaves .venv/bin/meshproxy
	@tools/setup.sh run

demo: ## a mesh: control plane, three deployments with sidecars, traffic, taps, tables; Ctrl-C or DEMO_SECONDS ends it
	@tools/setup.sh mesh
	@DEMO_SECONDS=$(DEMO_SECONDS) exec $(PYTHON) examples/demo.py

test: ## run the whole suite
	@tools/setup.sh test
	@$(PYTEST) $(PARALLEL) $(ARGS)

asan: ## run the suite against a build with AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/setup.sh test
	@env --default-signal=INT tools/asan.sh $(PARALLEL) $(ARGS)

bench: ## time each room against the stored baseline
	@tools/setup.sh bench
	@$(PYTEST) bench $(ARGS)

bench-peers: ## CPU per request beside nginx, HAProxy, Envoy and a raw TCP forwarder
	@tools/setup.sh bench
	@$(PYTHON) -m bench.compare $(ARGS)

bench-filters: ## a filter in Python beside mitmproxy and aiohttp
	@tools/setup.sh bench
	@$(PYTHON) -m bench.filters $(ARGS)

dist: ## build sdist and wheel into dist/
	@tools/setup.sh dist
	@rm -rf dist
	@$(PYTHON) -m build --no-isolation >.ci-build/dist.log 2>&1 || { tail -n 40 .ci-build/dist.log >&2; exit 1; }
	@ls -l dist

clean: ## remove what was built; keeps .venv
	@rm -rf build dist .ci-build .demo .pytest_cache .hypothesis .mypy_cache meshcore/_fastpath*.so meshcore/_fastpath*.c
	@find . -name .venv -prune -o \( -name __pycache__ -o -path './meshcore/*.html' \) -print0 | xargs -0 rm -rf

distclean: clean ## remove .venv too
	@rm -rf .venv *.egg-info
