# Every target sets up what it needs: the virtual environment from uv.lock, nothing outside the tree
# but the cache folder of `make assets`.
SHELL := /bin/sh
# Each process of a test would compile each module again, and each pytest worker all tests.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-real test-virtual test-fast test-node assets assets-node assets-issuers test-issuers image release sbom check fuzz fuzz-coverage bench faults soak mutants worlds clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.locked ## Make the virtual environment from the lock file

# uv installs the lock and is itself in it; pip brings the first one.
$(VENV)/.locked: uv.lock pyproject.toml
	@test -x $(BIN)/uv || { echo "setup: making $(VENV)"; $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@echo "setup: installing the locked packages"
	@VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --all-extras --compile-bytecode
	@touch $@

demo: setup ## Run the whole system on this machine, with its live view
	@# In a process group of its own, so that Ctrl-C ends the demo and not make with it.
	@if [ -t 0 ]; then set -m; fi; $(BIN)/reconciler demo

assets: setup ## Find or build the real servers that the cluster tests need
	$(BIN)/python -m tests.assets

assets-node: setup ## The same, and what a whole node needs: kubelet, scheduler, controller manager
	$(BIN)/python -m tests.assets --node

assets-issuers: setup ## The same, and every issuer of the tests, not Keycloak alone
	$(BIN)/python -m tests.assets --issuers

# The log of HEAD changes with each commit, whose time and name the image has.
IMAGE_SOURCES := Dockerfile .dockerignore pyproject.toml uv.lock README.md LICENSE CHANGELOG.md \
  $(wildcard $(shell git ls-files reconciler tests/image && git rev-parse --git-path logs/HEAD))

image: build/image.tar ## Build the image without a registry (root, buildah, debootstrap); build/image.tar

build/image.tar: $(IMAGE_SOURCES) | setup
	$(BIN)/python -m tests.image

# Where the releases of this product are published; docs/release.md.
URL ?= https://releases.example/runner-token-reconciler

release: setup ## Build the files of a release, which must be the same each time; VERSION=0.1.0
	$(BIN)/python -m tests.release "$(VERSION)" "$(URL)"

sbom: setup ## List the image's packages with their licences; build/sbom.cdx.json
	$(BIN)/python -m tests.release.sbom

# The issuers' tests wait for minutes: with the folders in order of their names, other workers would
# have nothing to do at their end.
FIRST := tests/alerts tests/browser tests/issuers
# Many short files: with a long one at the end, all workers but one would have nothing to do. The
# release's images are built before, when the node has loaded the image.
LAST := tests/lab
FOLDERS = $(patsubst %/,%,$(wildcard tests/*/))

# Tests with tokens of seconds, which nearly only wait: three at a time leave a core free. The longest
# are first; a worker would take six seconds to import the tests of all files.
REALTIME := tests/cluster/test_api_server_restart.py tests/lab/test_demo_replicas.py \
  tests/lab/test_demo.py

# What runs on virtual time alone waits for nothing, and no wait of a real server depends on it: with
# a low priority it takes the core time that all others leave, and its time limit is for what hangs.
VIRTUAL := tests/fuzz tests/simulation tests/unit

test: setup ## Run every test that can run here; print what was skipped and how to get it
	@mkdir -p build; $(MAKE) test-virtual >build/test-virtual.log 2>&1 & virtual=$$!; \
	  $(MAKE) test-real; code=$$?; wait $$virtual || code=$$?; cat build/test-virtual.log; exit $$code

test-virtual: setup ## The part of it that needs no server and takes what the rest leaves of the cores
	nice -n 10 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder --timeout=900 \
	  --durations=15 -m "not realtime" $(VIRTUAL)

# More than half of their time is waiting, so that four workers use two cores.
test-real: setup ## The other part: servers, browsers, processes
	$(BIN)/python -m pytest -n "$(or $(WORKERS),4)" --dist loadfile --no-loadscope-reorder \
	  --durations=15 -m "not realtime" \
	  $(FIRST) $(filter-out $(FIRST) $(LAST) $(VIRTUAL) %/__pycache__,$(FOLDERS)) $(LAST)
	$(BIN)/python -m pytest -n 3 --maxschedchunk 1 -m realtime $(REALTIME)

faults: assets ## Break HTTP, TLS and TCP between the product and its real peers; stop, kill and fill servers
	$(BIN)/python -m pytest tests/faults

test-fast: setup ## Run the unit tests alone
	$(BIN)/python -m pytest tests/unit

# The node has separate network, mount and process namespaces: it reaches nothing outside, and ends
# with all its processes.
test-node: assets-node build/image.tar ## A whole node with a real kubelet (root on Linux, containerd, CNI plugins)
	RECONCILER_NODE_TESTS=1 RECONCILER_REQUIRE_CLUSTER=1 \
	  tests/node/enclosed.sh $(BIN)/python -m pytest tests/node

test-issuers: assets-issuers ## Run the issuers' tests against all four, not Keycloak alone
	RECONCILER_ALL_ISSUERS=1 RECONCILER_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest tests/issuers \
	  -n 4 --dist loadscope --durations=0 --durations-min=1

# Tests that hold documents, manifests and rules of the code against the code: seconds, no server.
CONSISTENCY := $(addprefix tests/unit/test_,documents.py examples.py wording.py clock_rule.py \
  confinement.py settings_names.py chart_values.py make_variables.py mutants.py \
  realtime.py) tests/alerts/test_dashboard.py

check: setup ## Lint, types, layers, wording, documents against code; starts no server
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.wording
	$(BIN)/python -m pytest -q $(CONSISTENCY)

fuzz: setup ## Run each parser of bytes from outside on changed samples; MINUTES=10, ONLY=jwt
	$(BIN)/python -m tests.fuzz --minutes "$(or $(MINUTES),10)" $(if $(ONLY),"$(ONLY)")

# Only some machines have a wheel of atheris, and `make setup` needs no compiler.
fuzz-coverage: setup ## The same with inputs chosen by the code that they reach (atheris); RUNS=50000, ONLY=jwt
	@VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --no-build \
	  --only-group fuzz || echo "fuzz-coverage: atheris cannot be installed here"
	$(BIN)/python -m tests.fuzz.by_coverage --runs "$(or $(RUNS),50000)" $(if $(ONLY),"$(ONLY)")

bench: assets ## Measure all figures, also in build/bench.json; QUICK=1, SESSIONS=100000, PART=resync,storm
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(SESSIONS),--sessions "$(SESSIONS)") \
	  $(if $(PART),--parts "$(PART)")

# Two hours, or as asked: MINUTES=30. SEED repeats the faults of a run.
soak: assets ## Run hours with a fault each minute; memory must stay level. MINUTES=120, SEED=7
	$(BIN)/python -m tests.soak --minutes "$(or $(MINUTES),120)" $(if $(SEED),--seed "$(SEED)")

mutants: assets ## Remove one defence after another; a world or a test must fail each time. ONLY="releases the Lease", SEEDS=5
	$(BIN)/python -m tests.mutants --workers "$(or $(WORKERS),3)" $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(ONLY),"$(ONLY)")

worlds: setup ## Simulated hours, sentences of moves, and elections among three replicas, from many seeds; SEEDS=200
	RECONCILER_SEEDS="$(or $(SEEDS),200)" $(BIN)/python -m pytest -n "$(or $(WORKERS),3)" \
	  tests/simulation/test_simulate.py tests/simulation/test_replicas.py \
	  tests/simulation/test_grammar.py::test_every_invariant_holds_whatever_moves_coincide

clean: ## Remove what the other targets made in this tree
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
