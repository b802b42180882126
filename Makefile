# One list of commands: people, hooks and .ci/run call the same. `make help` lists them.
#
# Needs python3.11 or newer (with venv), cargo, g++ and make; the rest is installed into .venv, as
# constraints.txt pins it. Two stamps say what is done: .venv/.tools and .venv/.built.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Executions of each parser's target, of the whole image's, steps of the API's; seconds of each of
# the former at most (0: until they are done, which takes hours).
FUZZ_RUNS ?= 10000000
FUZZ_IMAGE_RUNS ?= 200000
FUZZ_STEPS ?= 200000
FUZZ_SECONDS ?= 0
CARGO_FUZZ_VERSION := 0.13.2

VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
ENGINE := cargo test --locked --package waferdb --all-features
SOURCES := $(shell find engine -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock \
	pyproject.toml setup.py $(wildcard build_backend/*.py python/waferdb/capi.p*) \
	python/waferdb/waferdb.h

# Tools that lint uses where they are installed; the rest of lint does not depend on them.
optional = if command -v $(1) >/dev/null; then $(2); else echo "$(1): not installed, skipped"; fi

# maturin is called by name, and PyO3 asks the first python for its configuration.
export PATH := $(VENV)/bin:$(PATH)
export PYO3_PYTHON := $(PY)

.PHONY: help setup demo test test-engine test-python lint format bench bench-full crash \
	crash-states crash-full crash-kernel interleavings fuzz clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV)/.tools: constraints.txt pyproject.toml
	@"$(PYTHON)" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "waferdb needs python3.11 or newer with venv; try: make PYTHON=/path/to/python"; exit 1; }
	@cargo --version >/dev/null || { echo "waferdb needs cargo (Rust 1.90 or newer)"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt pip setuptools
	$(PIP) install --quiet --constraint constraints.txt --group dev
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[embed,cli]'
	@touch $@

setup: $(VENV)/.built ## .venv with everything, and the engine compiled in release mode

demo: setup ## the main job, on real text, beside the usual way
	$(VENV)/bin/waferdb demo

test: test-engine test-python ## every test

test-engine: setup
	$(ENGINE)

test-python: setup
	$(PY) -m mypy.stubtest waferdb._core waferdb.capi
	$(PY) -m pytest
	$(PY) -m pytest --doctest-modules python/waferdb

lint: setup ## formatting, lints and types
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	@$(call optional,pyright,pyright)
	@$(call optional,cargo-deny,cargo deny check)

format: setup ## writes what lint checks of the formatting
	cargo fmt --all
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# With root, on a device of its own (docs/benchmarks.md); without, in the temporary directory.
bench: setup ## every benchmark, within 15 minutes on two cores; report in benchmarks/results
	$(PY) -m benchmarks --size small

bench-full: setup ## every benchmark with 1,000,000 memories, as the published tables state
	$(PY) -m benchmarks --size full

CRASHES := --test crash_points --test small_worlds --test simulation --test every_bit \
	--test planted

crash: crash-states interleavings crash-kernel ## every crash test at depth

crash-states: setup ## simulated crashes: states, seeds and figures, within 15 minutes on two cores
	WAFERDB_CRASH=full $(ENGINE) $(CRASHES) -- --nocapture

crash-full: setup ## the same for hours
	WAFERDB_CRASH=hours $(ENGINE) $(CRASHES) -- --nocapture

crash-kernel: setup ## kills, power cuts and failing system calls of a real kernel; root for all of it
	WAFERDB_CRASH=full $(PY) -m pytest tests/crash
	WAFERDB_CRASH=full WAFERDB_KILLS=1000 WAFERDB_CUTS_EXT4=1000 WAFERDB_CUTS_XFS=200 \
		WAFERDB_SYSCALLS=all WAFERDB_INTERRUPTIONS=100 $(PY) -m pytest -s -rs tests/kernel

# Another build of the engine, whose locks, atomics and threads shuttle schedules.
interleavings: ## the engine's threads in orders that a scheduler chooses, WAFERDB_SCHEDULES a model
	RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle \
		WAFERDB_SCHEDULES=$${WAFERDB_SCHEDULES:-2000} \
		cargo test --locked --package waferdb --test interleavings -- --nocapture

# libFuzzer's instrumentation is behind unstable flags; RUSTC_BOOTSTRAP lets the stable compiler
# take them. It also needs g++. Parsers are safe code and run without AddressSanitizer, several
# times as fast; the whole image runs with it, and without the comparisons' traces, which would
# take half of its time. The API's steps are played by Python.
fuzz_run = mkdir -p fuzz/corpus/$(1); RUSTC_BOOTSTRAP=1 cargo fuzz run $(2) $(1) \
	fuzz/corpus/$(1) fuzz/seeds/$(1) -- -runs=$(3) -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	-print_final_stats=1

fuzz: setup $(VENV)/bin/cargo-fuzz ## the fuzz targets and the fuzzer of the API, at full depth
	set -e; for target in $$(cargo fuzz list | grep -v '^database_image$$'); do \
		$(call fuzz_run,$$target,--sanitizer none,$(FUZZ_RUNS)); done
	$(call fuzz_run,database_image,--no-trace-compares,$(FUZZ_IMAGE_RUNS))
	WAFERDB_FUZZ_STEPS=$(FUZZ_STEPS) $(PY) -m pytest -s tests/fuzz
	WAFERDB_HYPOTHESIS=thorough $(PY) -m pytest tests/property/test_model.py

$(VENV)/bin/cargo-fuzz: | $(VENV)/.tools
	cargo install --locked --root $(VENV) --version $(CARGO_FUZZ_VERSION) cargo-fuzz

clean: ## everything that can be made again
	rm -rf $(VENV) target build dist fuzz/target .pytest_cache .mypy_cache .ruff_cache .benchmarks
	rm -f python/waferdb/*.so python/waferdb/capi.c
	find . -name __pycache__ -prune -exec rm -rf {} +
