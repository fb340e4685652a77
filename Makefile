# The one task file: README, pre-commit and .ci/run call these targets.

LOCK    := requirements.lock
BIN     := .venv/bin
READY   := .venv/.installed
# A second checkout (git worktree) may link to the first one's environment: it is used as it is, with this checkout's code.
LINKED  := $(shell [ -L .venv ] && [ -x .venv/bin/python ] && echo yes)
ifeq ($(LINKED),yes)
READY   := .venv
export PYTHONPATH := $(CURDIR)
endif
TORCH   := $(shell sed -n 's/^ *"torch==\([^"]*\)".*/\1/p' pyproject.toml)
# Quiet but for errors. Compiling all modules would take half of the installation: Python compiles those it uses.
PIP     := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
INSTALL := $(PIP) install --no-compile
SOURCES := $(wildcard abfed tools benchmarks experiments)  # tests are run, not typed: pandas stubs say more there than tests do
BENCHES := $(sort $(wildcard benchmarks/bench_*.py))

# Settings to change on the command line, as in `make test WORKERS=4 ARGS="-k gate"`.
WORKERS       ?= auto
ARGS          ?=
BENCH_TIMEOUT ?= 1200
WORKSPACE     ?= workspace

# JupyterLab refuses to run as root unless it is told to; nobody else is given the flag.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)

# The wheel of torch that fits this machine is pip's choice; Flower stays quiet and at home.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

# Without compiled modules each process compiles torch and SciPy anew: 5 CPU s of the 11 of a small run.
unexport PYTHONDONTWRITEBYTECODE

# Slow tests of one file share what takes long to make (a month, a federation): one worker makes it, once.
# pytest ends with 5 when no test is marked so: that is no failure.
NONE_YET = [ $$? -eq 5 ]

say = @printf '\033[1m== %s\033[0m\n'

.DEFAULT_GOAL := help
.PHONY: help install demo docs lab test test-slow test-privacy test-lab breaks lint format bench bench-coverage lock clean

help:  ## this list
	@printf 'make <target>\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: $(READY)  ## make .venv from the lock

ifneq ($(LINKED),yes)
# A Python that runs (a version manager's shim may exist and not run) and is new enough.
$(READY): $(LOCK) pyproject.toml
	$(say) 'looking for Python 3.11'
	@python=; for candidate in python3.11 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'abfed needs Python 3.11 or newer, and neither python3.11 nor python3 is one.' >&2; \
	  echo 'Install it (Debian: apt-get install python3.11 python3.11-venv; conda: see environment.yml).' >&2; exit 1; \
	fi; \
	echo "   $$($$python --version)"; $$python -m venv .venv
	$(say) 'installing torch $(TORCH)'
	@test -n '$(TORCH)' || { echo 'pyproject.toml pins no torch==version.' >&2; exit 1; }
	@$(INSTALL) 'torch==$(TORCH)'
	$(say) 'installing the locked packages, hashes checked (some minutes the first time)'
	@$(INSTALL) --no-deps --require-hashes -r $(LOCK)
	$(say) 'installing abfed itself, editable'
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check || echo '   The lock is made on Linux; install what this platform needs besides with $(BIN)/pip.' >&2
	@touch $@
endif

demo: $(READY)  ## the whole story on synthetic brands
	@$(BIN)/abfed demo

# The address that is printed opens the tutorial, too, and nobody outside is asked for news.
lab: $(READY)  ## JupyterLab, opened on the tutorial (your copy of it lies in lab/)
	@mkdir -p lab && cp -n notebooks/tutorial/welcome.ipynb lab/ || true
	@ABFED_WORKSPACE='$(abspath $(WORKSPACE))' $(BIN)/jupyter lab --notebook-dir=. $(AS_ROOT) \
	  --LabApp.extra_labextensions_path='$(CURDIR)/abfed/lab/labextensions' \
	  --LabApp.default_url=/lab/tree/lab/welcome.ipynb \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None

test: $(READY)  ## every test but the slow ones (ARGS="-k gate")
	@$(BIN)/pytest -n $(WORKERS) -m 'not slow' $(ARGS)

test-slow: $(READY)  ## the slow tests
	@$(BIN)/pytest tests -n $(WORKERS) --dist loadfile -m slow $(ARGS) || $(NONE_YET)

test-privacy: $(READY)  ## the slow tests that guard privacy
	@$(BIN)/pytest tests -n $(WORKERS) --dist loadfile -m 'slow and privacy' $(ARGS) || $(NONE_YET)

breaks: $(READY)  ## break each control in a copy of the code, and see its test fail (ARGS="S2 --slow")
	@$(BIN)/python -m tools.breaks $(ARGS)

test-lab: $(READY)  ## the tutorial in JupyterLab, driven in a browser
	@$(BIN)/pytest tests/lab/test_jupyterlab.py -m slow $(ARGS)

lint: $(READY)  ## style, format, types and import contracts
	$(say) 'ruff check'
	@$(BIN)/ruff check .
	$(say) 'ruff format'
	@$(BIN)/ruff format --check .
	$(say) 'mypy'
	@$(BIN)/mypy $(SOURCES)
	$(say) 'import contracts'
	@$(BIN)/lint-imports

format: $(READY)  ## put the code in form
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(READY)  ## the documentation's site, in build/site
	@$(BIN)/python tools/docs.py

bench: $(READY)  ## every benchmark, each bounded (BENCH_TIMEOUT=seconds)
	@failed=0; for bench in $(BENCHES); do \
	  printf '\033[1m== %s\033[0m\n' "$$bench"; \
	  timeout $(BENCH_TIMEOUT) $(BIN)/python "$$bench" || { echo "   failed or took longer than $(BENCH_TIMEOUT) s" >&2; failed=1; }; \
	done; exit $$failed

bench-coverage: $(READY)  ## coverage of every interval, over 2,000 simulated experiments each (TIMES=n)
	@$(BIN)/python benchmarks/bench_coverage.py

# Not after `install`: a dependency that is new in pyproject.toml can be installed only once it is locked.
lock:  ## renew requirements.lock and environment.yml (ARGS=--upgrade)
	@test -x $(BIN)/pip-compile || $(MAKE) --no-print-directory $(READY)
	$(say) 'resolving'
	@$(BIN)/python tools/lock.py $(ARGS)

clean:  ## remove .venv, caches and build leftovers
	rm -rf .venv build dist *.egg-info .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find abfed tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
