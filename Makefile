# Needs python3 (3.9 or newer) with pip, and make; everything else is set up here:
# a private uv under .tools when there is none, Python 3.12 and the locked
# packages under .venv.

CONFIG  ?= configs/tiny.py
WORKDIR ?= runs/tiny
# Of `make test` and `make test-slow`: files or folders; all by default.
TESTS   ?=
# Two workers: a test that compiles keeps about one core busy.
PYTEST  ?= .venv/bin/python -m pytest -q -n 2 --dist worksteal
STAMP   := .venv/.setup-done
AOT     := .venv-aot/.setup-done
DOCS    := .venv-docs/.setup-done
FAST    := not slow and not aot and not gpu and not tpu

export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON := 3.12
# Under pyenv, `python3.12` on the PATH only runs where 3.12 is the chosen version.
export PYENV_VERSION := 3.12
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.PHONY: help setup demo test test-slow test-aot docs lint format clean graph

help:
	@echo "make demo       set up, then run $(CONFIG) in $(WORKDIR)"
	@echo "make test       set up, then run the tests (without those marked slow)"
	@echo "make test-slow  set up, then run the tests marked slow"
	@echo "make test-aot   set up .venv-aot, then compile for H200, TPU v5e and v6e"
	@echo "make docs       set up .venv-docs, then build the pages into build/site"
	@echo "make lint       set up, then ruff and pyright"
	@echo "make format     set up, then let ruff rewrite the sources"
	@echo "make graph      set up, then write the module graph into docs/architecture.md"
	@echo "make setup      set up only"
	@echo "make clean      remove .venv, .tools and caches; runs/ is kept"

setup: $(STAMP)

# The module graph in docs/architecture.md.
graph: $(STAMP)
	.venv/bin/python tests/support/module_graph.py --write

demo: $(STAMP)
	.venv/bin/python -m seal_jax.train --config=$(CONFIG) --workdir=$(WORKDIR)

# Compiling is most of the tests' time, and what they compile runs for milliseconds:
# without XLA's costly passes it takes two thirds. `make test-slow` and the CI's leg on
# the newest jax compile as users do.
test: export XLA_FLAGS += --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
test: $(STAMP)
	$(PYTEST) -m "$(FAST)" $(TESTS)

test-slow: $(STAMP)
	$(PYTEST) -m "slow and not aot and not gpu and not tpu" $(TESTS)

# Plugins for accelerators in an environment of their own: in .venv jax would look for
# drivers at every start.
test-aot: $(AOT)
	.venv-aot/bin/python -m pytest -q -n 2 --dist worksteal -m aot

$(AOT): $(STAMP)
	UV_PROJECT_ENVIRONMENT=.venv-aot "$$(cat $(STAMP))" sync --frozen --quiet --group aot
	@touch $@

# Of an environment of its own, without the package: pages are only text.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

$(DOCS): $(STAMP)
	UV_PROJECT_ENVIRONMENT=.venv-docs "$$(cat $(STAMP))" sync --frozen --quiet --only-group docs
	@touch $@

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

format: $(STAMP)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-aot .venv-docs .venv-newest .tools .cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamp holds the uv that was used, for scripts that need one.
# The second try is for networks whose certificates only the system knows.
# `uv cache dir` reads pyproject.toml, so it also fails on a uv older than the
# project requires, and on a version manager's stub for a uv that is not there.
$(STAMP): pyproject.toml uv.lock
	@set -e; \
	usable() { "$$1" cache dir >/dev/null 2>&1; }; \
	uv=''; \
	for u in uv "$$HOME/.local/bin/uv" "$$HOME/.cargo/bin/uv" .tools/bin/uv; do \
	  if usable "$$u"; then uv="$$u"; break; fi; \
	done; \
	if [ -z "$$uv" ]; then \
	  for p in python3 /usr/bin/python3 /usr/local/bin/python3 python; do \
	    "$$p" -m pip --version >/dev/null 2>&1 || continue; \
	    echo "setup: no usable uv found; installing one into .tools with $$p -m pip"; \
	    rm -rf .tools; \
	    if PIP_USER=0 PIP_ROOT_USER_ACTION=ignore "$$p" -m pip install --quiet --disable-pip-version-check \
	      --target .tools uv && usable .tools/bin/uv; then \
	      uv=.tools/bin/uv; break; \
	    fi; \
	  done; \
	fi; \
	if [ -z "$$uv" ]; then \
	  echo "setup: neither uv nor a python3 with pip works here; install one" \
	    "(Debian: apt-get install python3-pip) and run make again" >&2; \
	  exit 1; \
	fi; \
	echo "setup: $$uv sync --frozen"; \
	"$$uv" sync --frozen || UV_SYSTEM_CERTS=1 "$$uv" sync --frozen || { \
	  echo "setup: uv could not set up .venv (see above). Without network access" \
	    "to a Python download, install Python 3.12 and run make again" >&2; \
	  exit 1; \
	}; \
	echo "$$uv" > $@
