# make demo | test | bench | bench-cpu | bench-networks | fuzz | sanitize | lint | docs | site | wheel | clean
#
# Every target sets up .venv by itself; a second call finds it there. A change to the C++ sources or to setup.py
# reinstalls the engine, a change to pyproject.toml its dependencies too.
#   PYTHON=python3.12   the interpreter .venv is made with (3.11 or newer)
#   EPOCHS=6            how long the demo trains
#   RESULTS=latest      what `make bench` calls its files in bench/results/
#   SHAPES=3000         how many random cases of each verb `make fuzz` draws (most of them distinct shapes)
#   TORCH=torch==2.13.0 the PyTorch that `make bench` measures against (a CPU build saves gigabytes)
#   SECONDS=0.2         how long each race of `make bench` is timed (without it 1.5 to 25, by suite; 0: five rounds)

SHELL  := /bin/sh
PYTHON ?= python3
EPOCHS ?= 6
RESULTS ?= latest
SHAPES ?= 3000
TORCH  ?= torch
SECONDS ?=
ONLY ?=
RUN    := bench/run.py $(if $(SECONDS),--seconds $(SECONDS))
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
ENGINE := $(VENV)/.engine
NATIVE := setup.py $(wildcard csrc/*.h csrc/cpu/* csrc/launch/*)
CXX_SOURCES := $(shell find csrc bench -name '*.[ch]' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.inl')

.DELETE_ON_ERROR:
.PHONY: demo test bench bench-cpu bench-networks fuzz sanitize lint docs site wheel clean
.PRECIOUS: $(VENV)/.extra-%

demo: $(VENV)/.extra-plot
	$(BIN)/cnnengine train lenet5 --epochs $(EPOCHS) --name demo --overwrite
	$(BIN)/python bench/demo_table.py

# each file's tests stay together in one of as many processes as there are cores; those that last longest begin first
test: $(VENV)/.extra-test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --benchmark-disable

# random shapes, anew each time, on every instruction set of this CPU and with every algorithm, against the oracle; and
# every kernel for every architecture
fuzz: $(VENV)/.extra-test
	CNNENGINE_FUZZ=$(SHAPES) $(BIN)/python -m pytest tests/test_native_random.py tests/test_nvrtc.py

# the native extension under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer: the operation
# tests run with no report. Five minutes, most of them building
sanitize: $(VENV)/.extra-test
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/build-system.txt
	$(PIP) install --requirement $(VENV)/build-system.txt
	$(BIN)/python tests/sanitize.py address
	$(BIN)/python tests/sanitize.py thread

bench: $(VENV)/.extra-bench
	$(BIN)/python $(RUN) --output bench/results/$(RESULTS).jsonl
	$(BIN)/python bench/report.py bench/results/$(RESULTS).jsonl --output bench/results/$(RESULTS).md

# the native backend against PyTorch alone, with freed memory kept for PyTorch and as shipped, under the roofs measured
# beside every row; prints all tables and which requirements hold. About 12 minutes
bench-cpu: $(VENV)/.extra-bench
	$(BIN)/python $(RUN) --keep-freed-memory --as-shipped --without NumPy --output bench/results/$(RESULTS).jsonl
	$(BIN)/python bench/report.py bench/results/$(RESULTS).jsonl --output bench/results/$(RESULTS).md

# whole networks: training steps and fused inference beside PyTorch, ONNX Runtime and OpenVINO. About 40 minutes, most of
# them torch.compile's; ONLY="training step ResNet" runs some
bench-networks: $(VENV)/.extra-bench $(VENV)/.extra-networks
	$(BIN)/python $(RUN) networks --keep-freed-memory --only "$(ONLY)" --output bench/results/$(RESULTS)-networks.jsonl
	$(BIN)/python bench/report.py bench/results/$(RESULTS)-networks.jsonl --output bench/results/$(RESULTS)-networks.md

lint: $(VENV)/.extra-test $(VENV)/.extra-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/python tests/lines.py

# the site, and all that the pages say to run
docs: site $(VENV)/.extra-test
	$(BIN)/python -m pytest tests/test_docs.py tests/test_course.py tests/test_site.py

# build/site/index.html, to be read without a network. A link or an anchor that leads nowhere is an error
site: $(VENV)/.extra-docs
	rm -rf build/site
	$(BIN)/python -m sphinx -E -W --keep-going -q -c docs/site . build/site
	@echo "the site is in build/site/index.html"

wheel: $(VENV)/.extra-test
	rm -rf build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(BIN)/python tests/wheel_check.py build/wheel

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .benchmarks *.egg-info
	find cnnengine kernels tests bench -name __pycache__ -prune -exec rm -rf {} +
	rm -f cnnengine/*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("cnnengine needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(ENGINE): pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "building the engine (about a minute)"
	$(PIP) install --editable .
	@touch $@

# the requirements of one extra, without building the engine a second time
$(VENV)/.extra-%: pyproject.toml | $(ENGINE)
	@$(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"], sep="\n")' > $(VENV)/extra-$*.txt
	@if [ "$*" = bench ]; then echo "$(PIP) install $(TORCH)"; $(PIP) install "$(TORCH)"; fi
	$(PIP) install --requirement $(VENV)/extra-$*.txt
	@touch $@
