# Everything a developer does here. `make` or `make help` lists it. Needs Python >= 3.11 and cargo.

PYTHON ?= python3
ARGS ?=
ROWS ?= all

IN_CLUSTER := $(addprefix tests/parts/,store/test_store_keys.py store/test_store_records.py \
	bus/test_bus_ingest.py bus/test_bus_idempotency.py bus/test_bus_retention.py) \
	$(addprefix tests/service/,devices/test_commands.py events/test_ingest_events.py listening/test_listen_filters.py \
	events/test_deliveries.py) \
	$(addprefix tests/unit/cli/test_cli_program.py::test_,commands_announce_their_changes devices_move_and_go)

# Of these tests the store is on three masters and three replicas in `make test-cluster`.
ON_THREE_MASTERS := $(addprefix tests/parts/,limits/test_limits_sharing.py limits/test_store_quotas.py \
	permissions presence/test_store_presence.py sessions/test_store_sessions.py messages/test_messages_stored.py \
	store/test_store_pages.py store/test_store_keys.py store/test_store_records.py access_changes/test_relay.py)

VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/stamps/dependencies
PACKAGE := $(VENV)/stamps/package
# What the test of generated clients needs; the generator in Python wants another typer than homewire.
BROWSER := $(VENV)/stamps/browser
CLIENTS := $(VENV)/stamps/clients
CORE := python/homewire/_core.abi3.so
RUST_NEEDED := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build run test build-and-test-rust python-and-cluster test-rust test-python test-cluster test-cluster-short test-model fuzz-core fuzz-api conformance lint format audit bench docs lock clean

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(CORE) ## dependencies into .venv, the Rust core built (both only when something changed)

run: build ## build, start everything on http://127.0.0.1:8080, print the next steps (ARGS="--port 9000")
	@exec $(BIN)/homewire run --demo $(ARGS)

test: build-and-test-rust python-and-cluster ## every test (make test-python ARGS="-k demo" for some)

# The output of each comes as a whole. To link keeps one core busy only, so the core that Python imports is built
# beside the one that cargo tests.
build-and-test-rust:
	@$(MAKE) --jobs --output-sync=target build test-rust

python-and-cluster:
	@$(MAKE) --jobs --output-sync=target test-python test-cluster-short

test-rust: $(DEPENDENCIES)
	cargo test --locked --no-fail-fast

# Tests wait much of their time, e.g. for servers to start. The tests of a file stay with one worker, and
# the longest files start first (tests/kit/order.py). One file is most of the short form: its tests are distributed.
WORKERS := -n 6 --dist loadfile --no-loadscope-reorder
test-cluster-short: WORKERS := -n 3 --dist load
# Tests start hundreds of nodes. Without bytecode each of them would compile homewire again.
test-python test-cluster test-cluster-short: export PYTHONDONTWRITEBYTECODE :=

test-python: build $(CLIENTS) $(BROWSER)
	$(BIN)/pytest -m "not slow" $(WORKERS) $(ARGS)

# A server in cluster mode accepts writes 2 s after its start, so `make test` has a short form only.
test-cluster: build $(CLIENTS) $(BROWSER) ## the service tests and those of the command line, on a Redis in cluster mode
	HOMEWIRE_TEST_CLUSTER=1 $(BIN)/pytest -m "not slow" $(WORKERS) tests/parts tests/service tests/unit/cli/test_cli_program.py $(ARGS)
	HOMEWIRE_TEST_CLUSTER=3 $(BIN)/pytest -m "not slow" $(WORKERS) $(ON_THREE_MASTERS) $(ARGS)

test-cluster-short: build
	HOMEWIRE_TEST_CLUSTER=1 $(BIN)/pytest -m "not slow" -o cache_dir=.pytest_cache/cluster $(WORKERS) $(IN_CLUSTER) $(ARGS)

test-model: build ## deliveries against a model, over 200 new random interleavings (HOMEWIRE_SEEDS=n other numbers; HOMEWIRE_SEED=n that one)
	$(BIN)/pytest tests/service/delivery_model/test_delivery.py -m $(if $(HOMEWIRE_SEED),"not slow",slow) -s $(ARGS)

fuzz-core: $(DEPENDENCIES) ## the core's properties, each over 20,000 random cases (PROPTEST_CASES=n other numbers)
	PROPTEST_CASES=$(or $(PROPTEST_CASES),20000) cargo test --locked -p homewire-core

fuzz-api: build ## schemathesis and a random life over the REST service, long (HOMEWIRE_EXAMPLES=n for each operation)
	HOMEWIRE_EXAMPLES=$(or $(HOMEWIRE_EXAMPLES),500) $(BIN)/pytest tests/service/rest/test_api_fuzz.py tests/service/rest/test_api_life.py $(ARGS)

conformance: build ## the Autobahn cases against the core alone (they are in `make test` too)
	$(BIN)/pytest tests/conformance $(ARGS)

lint: build ## ruff, mypy, import-linter, words of names, stubtest, rustfmt, clippy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	.ci/words
	$(BIN)/stubtest homewire._core
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

format: $(DEPENDENCIES) ## format and repair with ruff and rustfmt
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt

audit: $(DEPENDENCIES) ## licences, sources and known vulnerabilities of the dependencies, if their database can be reached
	.ci/audit

bench: build ## measure the rows of bench/README.md (ROWS="memory handshake", ARGS=--small for a trial)
	$(BIN)/python -m bench $(ROWS) $(ARGS)

docs: build ## write the pages that are made from tables in the code
	$(BIN)/python -m homewire.settings --markdown > docs/settings.md
	$(BIN)/python -m homewire.realtime.close_codes > docs/close-codes.md
	$(BIN)/python -m homewire.access_changes.records > docs/control-records.md
	$(BIN)/python -m homewire.metrics > docs/metrics.md
	$(BIN)/python -m homewire.reasons > docs/errors.md

lock: $(DEPENDENCIES) ## resolve pyproject.toml again into requirements.lock
	$(BIN)/pip install uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--extra test --extra bench --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		tests/clients/requirements.in -o tests/clients/requirements.lock

clean: ## remove what was built; data/ stays
	rm -rf $(VENV) target $(CORE)

$(DEPENDENCIES): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "homewire needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	@command -v cargo > /dev/null || { echo "homewire needs cargo (Rust) to build its core" >&2; exit 1; }
	@printf '%s\n' "$(RUST_NEEDED)" "$$(cargo --version | cut -d' ' -f2)" | sort -V -C || \
		{ echo "homewire needs Rust $(RUST_NEEDED) or newer; this is $$(cargo --version)" >&2; exit 1; }
	@echo "installing the pinned dependencies into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --require-hashes -r requirements.lock
	@mkdir -p $(@D) && touch $@

$(CLIENTS): tests/clients/requirements.lock tests/clients/typescript/package-lock.json $(DEPENDENCIES)
	@command -v npm > /dev/null || { echo "the tests need Node.js 20 or newer, with npm" >&2; exit 1; }
	@echo "installing the generators of clients"
	@$(PYTHON) -m venv $(VENV)/clients
	@$(VENV)/clients/bin/pip install --require-hashes -r tests/clients/requirements.lock
	@npm ci --silent --prefix tests/clients/typescript
	@touch $@

# Once for each pyproject.toml: makes python/ importable in the venv and installs bin/homewire.
$(PACKAGE): pyproject.toml README.md $(DEPENDENCIES)
	@echo "installing homewire into $(VENV), editable"
	@$(BIN)/maturin develop --release --locked
	@mkdir -p $(@D) && touch $@

# Later only the extension is built again.
$(CORE): $(RUST) $(PACKAGE)
	@echo "building the Rust core"
	@$(BIN)/maturin develop --release --locked --skip-install
	@touch $@

# If it cannot be installed, pytest skips its tests and names them.
$(BROWSER): | $(DEPENDENCIES)
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
		&& echo "installing chromium for the browser test" \
		&& apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install chromium > /dev/null; } \
		|| echo "there is no chromium here, and it can't be installed: the browser test will be skipped"
	@touch $@
