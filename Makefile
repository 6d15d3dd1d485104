# Two commands do everything on a fresh machine: `make demo` and `make test`.
# PYTHON is any Python 3.10 to 3.13 with venv and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all judges lint types install install-dev corpus train eval soundness scan fuzz bench long gains gpu gpu-files compiled clean

# torch comes first and pinned: asked for by another package, pip would take the newest build there is.
# What is compiled is compiled again when it changes.
COMPILED_FROM := $(wildcard formats/core/*.py formats/core/*.pxd bytegen/cpu/*.c bytegen/cpu/*.h)
$(BIN)/.base: constraints.txt pyproject.toml setup.py $(COMPILED_FROM)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(BIN)/.dev: $(BIN)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

install: $(BIN)/.base

install-dev: $(BIN)/.dev

PROMPT ?= count from 3 to 9

demo: install
	@mkdir -p runs
	$(BIN)/bytegen generate "$(PROMPT)" -o runs/demo --run
	$(BIN)/bytegen check runs/demo

test: install-dev lint types
	$(BIN)/python -m pytest -m "not full" -n 2

test-all: install-dev judges lint types
	$(BIN)/python -m pytest -n 2

# Judges and compilers from Debian. Without root or apt-get, tests that need them skip with a reason.
JUDGES := wine64 qemu-user binutils gcc musl-tools gcc-mingw-w64-x86-64 gcc-mingw-w64-i686 libc6-i386

judges:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get install -y -q --no-install-recommends $(JUDGES) >/dev/null \
			|| echo "some of these could not be installed: $(JUDGES)"; \
	else echo "not root, or no apt-get: install these by hand: $(JUDGES)"; fi

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The type checker cannot follow setup.py's package_dir, so it is shown the installed shape through links.
types: install-dev
	@rm -rf .typecheck && mkdir -p .typecheck/bytegen
	@ln -s $(CURDIR)/bytegen/* $(CURDIR)/kernels $(CURDIR)/formats $(CURDIR)/train .typecheck/bytegen/
	cd .typecheck && ../$(BIN)/mypy --config-file ../pyproject.toml -p bytegen

CORPUS ?= corpus
SAMPLES ?= 60000

corpus: install-dev
	$(BIN)/bytegen corpus build $(CORPUS) --samples $(SAMPLES)

train: install-dev
	$(BIN)/bytegen train first-flight

eval: install-dev
	$(BIN)/bytegen eval

# Random files of every format before every judge; real files replayed.
FILES ?= 20000
REAL ?= /usr/bin /usr/lib

soundness: install-dev
	$(BIN)/python benchmarks/soundness.py --files $(FILES) --jobs 2 --json benchmarks/soundness.jsonl

scan: install-dev
	$(BIN)/bytegen corpus scan $(REAL) --json benchmarks/completeness.jsonl

bench: install-dev
	$(BIN)/bytegen bench formats --json benchmarks/formats.jsonl
	$(BIN)/bytegen bench sandbox --json benchmarks/sandbox.jsonl
	$(BIN)/bytegen bench generate --json benchmarks/generate.jsonl

# One file of 143,360 bytes by the packaged model: about a quarter of an hour of two cores.
long: install-dev
	$(BIN)/bytegen bench long --json benchmarks/long.jsonl

# What choosing among many files gains, and what less precision costs, on held-out prompts: some minutes each.
gains: install-dev
	$(BIN)/python benchmarks/best_of.py --per-kind 12 --json benchmarks/best_of.jsonl
	$(BIN)/python benchmarks/precision.py --json benchmarks/precision.jsonl

# Kernels compiled ahead of time for every GPU of the tables: registers, spills, shared memory, tensor cores. Rows of
# the sources that are here are kept, so it can be built in pieces: COMPILED="--architecture sm_80 --seconds 300". What
# the kernels should take on each card follows from it.
COMPILED ?=

compiled: install-dev
	TRITON_INTERPRET=0 $(BIN)/python -m bytegen.kernels.compiled --json benchmarks/compiled.jsonl $(COMPILED)
	$(BIN)/bytegen bench kernels --estimate --card h100 --card h200 --card b200 --card a100 --card mi300x \
		--compiled benchmarks/compiled.jsonl --markdown docs/kernels-estimate.md

# On a machine with a CUDA GPU: the kernel tests on the real thing, the benchmark, then bytes a second of a 1B and a 7B
# shape at the end of files of 140 KB, within 8 minutes; where one of these fails or takes too long, the others run all
# the same. The kernel in Gluon, which may hang where it is wrong, is tested last, and the benchmark measures it in a
# process of its own. It takes the Python that is there when that has a torch with CUDA, or name one: GPU_PYTHON=...
# "make gpu-files" writes 25 files of 140 KB for real, which takes longer.
GPU_PYTHON ?= $(PYTHON)
GPU_RUN := TRITON_INTERPRET=0 PYTHONPATH=.gpu

gpu:
	@rm -rf .gpu && mkdir -p .gpu/bytegen
	@ln -s $(CURDIR)/bytegen/* $(CURDIR)/kernels $(CURDIR)/formats $(CURDIR)/train .gpu/bytegen/
	@$(GPU_PYTHON) -c "import torch; assert torch.cuda.is_available()" 2>/dev/null \
		|| { echo "make gpu needs a CUDA GPU and a Python whose torch sees it (GPU_PYTHON=...)"; exit 2; }
	@set -x; failed=0; \
	$(GPU_RUN) timeout 190 $(GPU_PYTHON) -m pytest -q -p no:cacheprovider tests/kernels -m "not full" -k "not compiled and not gluon" || failed=1; \
	$(GPU_RUN) timeout 155 $(GPU_PYTHON) -m bytegen.kernel_bench --seconds 0.2 --json benchmarks/kernels-gpu.jsonl --plots benchmarks || failed=1; \
	$(GPU_RUN) timeout 75 $(GPU_PYTHON) -m bytegen.decode_bench --device cuda --seconds 0.3 --json benchmarks/long-gpu.jsonl || failed=1; \
	$(GPU_RUN) timeout -k 5 55 $(GPU_PYTHON) -m pytest -q -p no:cacheprovider tests/kernels/test_gluon_hopper.py || failed=1; \
	exit $$failed

SHAPE ?= 1b

gpu-files:
	@rm -rf .gpu && mkdir -p .gpu/bytegen
	@ln -s $(CURDIR)/bytegen/* $(CURDIR)/kernels $(CURDIR)/formats $(CURDIR)/train .gpu/bytegen/
	$(GPU_RUN) $(GPU_PYTHON) -m bytegen.decode_bench --device cuda --shape $(SHAPE) --batch 25 --files 25 --json benchmarks/long-gpu-files.jsonl

# atheris has wheels for Linux on x86-64, and not for every Python.
SECONDS ?= 300

fuzz: install-dev
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[fuzz]"
	$(BIN)/python fuzz/fuzz_check.py --seconds $(SECONDS) --json benchmarks/fuzz.jsonl

clean:
	rm -rf $(VENV) .typecheck .gpu build dist runs *.egg-info formats/core/*.so formats/core/*.pyd bytegen/cpu/*.so bytegen/cpu/*.pyd
