# Two commands do everything: `make demo` and `make test`. They need Python 3.11 or later, pip and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.run
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-on lowest stress pairs cluster storm figures faults pooled lint format verify golden freeze bench \
  soak build release dev psql install-extension clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Debian's Python may lack ensurepip; then the system's pip fills the environment from outside.
PIP = $(if $(wildcard $(BIN)/pip),$(BIN)/pip,$(PYTHON) -m pip --python $(BIN)/python)
INSTALL = $(PIP) install --quiet --disable-pip-version-check --editable

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) 2> /dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)

$(RUN): pyproject.toml | $(BIN)/python
	@$(INSTALL) '.[embedded,cli,examples]'
	@touch $@

$(READY): $(RUN)
	@$(INSTALL) '.[test,lint]'
	@touch $@

demo: $(RUN) ## Run a research agent on an embedded PostgreSQL; print its memory and history
	@$(BIN)/python python/examples/demo.py $(DEMO_ARGS)

test: $(READY) ## Run all tests: pgTAP, Python and the examples (PYTEST_ARGS='-k claim')
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

PG_BIN ?= /usr/lib/postgresql/15/bin
test-on: $(READY) ## Run all tests on another PostgreSQL, 15 or later (PG_BIN=/usr/lib/postgresql/15/bin)
	@PERDURE_PG_BINDIR=$(PG_BIN) $(BIN)/python -m pytest $(PYTEST_ARGS)

LOWEST := $(VENV)/lowest
lowest: ## Run all tests with the oldest packages that pyproject.toml allows
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	@$(LOWEST)/bin/python -m pytest $(PYTEST_ARGS)

AMOUNT ?= 10
stress: $(READY) ## Run the random tests longer (AMOUNT=10: ten times as many commands)
	@PERDURE_TEST_AMOUNT=$(AMOUNT) $(BIN)/python -m pytest -m stress -rP -o faulthandler_timeout=0 $(PYTEST_ARGS)

pairs: $(READY) ## Race every verb against every other, at each lock; some in threes (40 minutes)
	@PERDURE_RACE_PAIRS=all $(BIN)/python -m pytest tests/races -k 'pairs or trios or lock_order or every_verb' -rP -o faulthandler_timeout=0 $(PYTEST_ARGS)

cluster: $(READY) ## Test failover, poolers, clocks and full disks longer (AMOUNT=10)
	@PERDURE_TEST_AMOUNT=$(AMOUNT) $(BIN)/python -m pytest tests/cluster -rPs -o faulthandler_timeout=0 $(PYTEST_ARGS)

storm: $(READY) ## Kill workers and servers and cut connections longer (AMOUNT=10)
	@PERDURE_TEST_AMOUNT=$(AMOUNT) $(BIN)/python -m pytest tests/storms -rP -o faulthandler_timeout=0 $(PYTEST_ARGS)

figures: $(READY) ## Run storms, cluster and model tests; write their figures into sql/guarantees.md (AMOUNT=10)
	@PERDURE_FIGURES=1 PERDURE_TEST_AMOUNT=$(AMOUNT) $(BIN)/python -m pytest tests/storms tests/cluster tests/model -rP -o faulthandler_timeout=0 $(PYTEST_ARGS)

# With NOTE=1 these two write what they did into sql/guarantees.md.
NOTE   ?=
SHARE  ?= 0.01
FAULTY ?=
faults: $(READY) ## Run all tests on a driver that fails at random and loses replies (SHARE=0.01, FAULTY=tests/worker)
	@PERDURE_FAULTS=$(SHARE) PERDURE_NOTE=$(NOTE) $(BIN)/python -m pytest -p tests.storms.faulty $(FAULTY) $(PYTEST_ARGS)

POOLED ?=
pooled: $(READY) ## Run all tests that can through PgBouncer in transaction mode (POOLED=tests/worker)
	@PERDURE_TEST_POOLER=1 PERDURE_NOTE=$(NOTE) $(BIN)/python -m pytest $(POOLED) $(PYTEST_ARGS)

lint: $(READY) ## Check SQL and Python: style and types
	@$(BIN)/sqlfluff lint --processes 2 sql pgtap
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## Format the Python code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

verify: $(READY) ## Test installation and upgrades: every way gives the same schema
	@$(BIN)/python -m pytest tests/install $(PYTEST_ARGS)

golden: $(READY) ## Before a release: write the golden journals of this version
	@$(BIN)/python tests/golden/make.py

freeze: $(READY) ## At a release: keep this version's SQL script, to test later upgrades against
	@$(BIN)/python tests/install/frozen.py

bench: $(READY) ## Measure throughput and latency on this machine (BENCH_ARGS='--workers 2 --amount 0.5')
	@$(INSTALL) '.[bench]'
	@$(BIN)/python tests/bench/bench.py $(BENCH_ARGS)

soak: $(READY) ## Measure growth: tables, claims, memory (AMOUNT=0.01; 1 is a million jobs and takes hours)
	@$(BIN)/python tests/bench/soak.py --amount $(if $(filter file,$(origin AMOUNT)),0.01,$(AMOUNT)) $(SOAK_ARGS)

build: $(RUN) ## Write the extension's script and control file into build/
	@$(BIN)/python -m perdure.installation.script build

# For a server whose files you can write: make install-extension PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config
PG_CONFIG ?= pg_config
install-extension: build ## Install the extension's files into a server (PG_CONFIG=pg_config)
	@install -d "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"
	@install -m 644 build/perdure.control build/perdure--*.sql "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"

release: $(READY) ## Build the wheel and the source archive into dist/
	@$(BIN)/python -m hatchling build

dev: $(RUN) ## Reload the functions into a live database; rows are not touched (DSN=…, SCHEMA=perdure)
	@$(BIN)/perdure dev $(if $(DSN),--dsn "$(DSN)") $(if $(SCHEMA),--schema "$(SCHEMA)")

psql: $(RUN) ## Open psql on the embedded server
	@$(BIN)/perdure psql

clean: ## Remove everything built, downloaded and cached
	@rm -rf build dist .cache .pytest_cache .mypy_cache .ruff_cache $(VENV)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
