# The front door. Every target sets up what it needs from Rust, Python and make alone, and is safe to repeat:
# what did not change is not built, installed or downloaded again.
#
#     make demo     a server that is killed in the middle, a link that is cut a hundred times: nothing is lost
#     make test     the whole suite, for every CPython 3.10 and newer that this machine has
#     make check    formatting, lints, types, stubs
#     make fuzz     every parser against invented input, SECONDS=30 each
#     make bench    netasync beside its peers: tables of speed, memory and CPU time
#     make instructions  what a message costs in processor instructions, by valgrind: noise does not touch it
#     make soak     the tests that take minutes, with full counts
#     make test-races   the races of threads and loops, in thousands of orders of their steps
#     make wheel    a release wheel for the default Python, under dist/
#     make clean    away with everything that was built
#
#     make test PYTHONS="3.10 3.13"            only these
#     make test-3.11 ARGS="-k reconnect -x"    one of them, with arguments for pytest
#     make bench ARGS="round-trip --rounds 9"  one workload, with more rounds; --help names everything

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-rust test-races check check-rust check-python fuzz bench instructions soak wheel clean FORCE
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),target)
# No prompt, no advice on versions, and packages of the user's own never leak in.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONNOUSERSITE := 1
# A path for modules given from outside would lead past the installed wheel.
unexport PYTHONPATH MYPYPATH

# Words such as 3.10=/path/of/python, and default=3.11. Looked for only where a Python is needed.
ifneq ($(filter-out clean fuzz help test-races test-rust,$(or $(MAKECMDGOALS),help)),)
INTERPRETERS := $(shell tools/interpreters.sh)
ifeq ($(INTERPRETERS),)
$(error a CPython 3.10 or newer is needed)
endif
endif
AVAILABLE := $(foreach word,$(filter-out default=%,$(INTERPRETERS)),$(firstword $(subst =, ,$(word))))
DEFAULT := $(patsubst default=%,%,$(filter default=%,$(INTERPRETERS)))
PYTHONS ?= $(AVAILABLE)
ifneq ($(filter-out $(AVAILABLE),$(PYTHONS)),)
$(error PYTHONS names $(filter-out $(AVAILABLE),$(PYTHONS)), but this machine has $(AVAILABLE))
endif
python = $(patsubst $(1)=%,%,$(filter $(1)=%,$(INTERPRETERS)))

help:
	@sed -n 's/^#     make/make/p' Makefile

demo: .venv/demo/installed
	.venv/demo/bin/python examples/demo.py $(ARGS)

test: test-rust $(PYTHONS:%=.venv/%/installed)
	tools/side-by-side.sh "$(PYTHONS)" $(ARGS)
	@echo "all tests passed: Rust, and CPython $(PYTHONS)"

# First the protocol by itself, with its simulation: it must not need a socket, a thread or a clock. What stands in
# `tests/` is of that room alone, and runs once.
test-rust: test-races
	cargo test --locked --no-default-features
	cargo test --locked --lib

# Who reads, who writes and who is woken, in thousands of orders: the scheduler is a test's own.
test-races:
	cargo test --locked --features races --lib races

check: check-rust check-python
	@echo "all checks passed"

check-rust: export PYO3_PYTHON := $(call python,$(DEFAULT))
check-rust:
	cargo fmt --check
	cargo clippy --locked --no-default-features --all-targets -- -D warnings
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --features python --all-targets -- -D warnings
	cargo clippy --locked --features races --lib --tests -- -D warnings
	cargo test --locked --no-default-features --no-run

# mypy reads the sources; stubtest compares what is installed with its stubs, as a user's type checker would.
check-python: .venv/check/installed
	.venv/check/bin/ruff format --check .
	.venv/check/bin/ruff check .
	.venv/check/bin/mypy
	.venv/check/bin/python -m mypy.stubtest netasync

bench: .venv/bench/installed
	.venv/bench/bin/python -m bench $(ARGS)

instructions: .venv/bench/installed
	.venv/bench/bin/python tools/instructions.py $(ARGS)

SECONDS ?= 30
fuzz:
	tools/fuzz.sh $(TARGET) $(SECONDS)

soak: export NETASYNC_SOAK := 1
soak: .venv/$(DEFAULT)/installed
	cargo test --locked --release --no-default-features
	cargo test --locked --release --features races --lib races
	.venv/$(DEFAULT)/bin/pytest -m soak --timeout 3600 -o faulthandler_timeout=3500 $(ARGS)

wheel: dist/$(DEFAULT)/built
	@ls dist/$(DEFAULT)/*.whl

clean:
	cargo clean
	rm -rf .venv dist .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A file below that stands for a content is written anew only when the content changed: a checkout or an editor
# that touches files starts no build.
.venv/sources: FORCE
	@mkdir -p $(@D)
	@find Cargo.toml Cargo.lock pyproject.toml README.md LICENSE* tools/backend.py src python -type f \
		! -name '*.pyc' ! -name '*.so' -exec cksum {} + | LC_ALL=C sort > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

.venv/groups: FORCE
	@mkdir -p $(@D)
	@sed -n '/^\[dependency-groups\]/,/^\[tool/p' pyproject.toml > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# $(1): the environment's name under .venv, $(2): the version of its Python, $(3): its dependency group.
define environment
.venv/$(1)/ready: .venv/groups $(call python,$(2))
	$(call python,$(2)) -m venv --clear .venv/$(1)
	.venv/$(1)/bin/python -m pip install --quiet --upgrade pip
	.venv/$(1)/bin/python -m pip install --quiet --group $(3)
	@touch $$@

.venv/$(1)/installed: .venv/$(1)/ready dist/$(2)/built
	.venv/$(1)/bin/python -m pip install --quiet --force-reinstall --no-deps dist/$(2)/*.whl
	@touch $$@
endef

# $(1): the version of a Python. Each has its own target directory, since PyO3 is built for one of them at a time.
define interpreter
$(call environment,$(1),$(1),test)

dist/$(1)/built: .venv/sources .venv/build/ready
	rm -rf dist/$(1)
	.venv/build/bin/python tools/backend.py .venv/build/bin/maturin build --release --locked --interpreter $(call python,$(1)) \
		--target-dir $(TARGET)/cpython-$(1) --out dist/$(1)
	@touch $$@

.PHONY: test-$(1)
test-$(1): .venv/$(1)/installed
	.venv/$(1)/bin/pytest $$(ARGS)
	@.venv/$(1)/bin/python -c 'import platform; print("CPython", platform.python_version() + ": tests passed")'
endef

ifneq ($(DEFAULT),)
$(foreach version,$(AVAILABLE),$(eval $(call interpreter,$(version))))
$(eval $(call environment,build,$(DEFAULT),build))
$(eval $(call environment,check,$(DEFAULT),check))
$(eval $(call environment,demo,$(DEFAULT),demo))
$(eval $(call environment,bench,$(DEFAULT),bench))
endif
