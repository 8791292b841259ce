# Needs Python 3.11 or later and make; everything else goes into .venv.
#
#   make run    the object store on 127.0.0.1:8080, data in ./ostore-data
#               (options: make run ARGS="--listen 127.0.0.1:9000")
#   make test   all tests (some of them: make test TESTS=tests.model)
#   make test-live  the tests over real processes, RabbitMQ and search servers
#               (needs rabbitmq-server, maven and a Java of 21 or later)
#   make test-simulator  200 seeds of the simulator, and what it must catch
#   make simulate   plays stories of crashes and faults in a simulated cluster
#               (make simulate SEEDS=1000 FIRST=0; docs/simulator.md)
#   make cluster    a development cluster: broker, search server, 6 data, 2 api;
#               needs the same; Ctrl-C ends it (make cluster ARGS=./folder keeps data)
#   make lint   format, lint, types, import floors
#   make bench  requests of each kind, 4 KiB to 2 GiB, beside what the machine does
#               of the same work without a service (ARGS=--cluster: of a cluster,
#               needs RabbitMQ; ARGS=--search: PUTs beside a search server alone)
#   make bench-paths  the same
#   make bench-command  benchmarks of the `ostore` command beside curl
#   make bench-cluster  benchmarks of a cluster beside a standalone; needs the same
#               as make cluster
#   make clean  remove what the above have made, except ./ostore-data

PYTHON ?= python3
ARGS ?=
TESTS ?=
JOBS ?= 2
COVERAGE ?=
SEEDS ?= 200
FIRST ?= 0
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet

.PHONY: run test test-live test-simulator simulate cluster lint bench bench-paths bench-command bench-cluster clean

run: $(VENV)/.installed
	$(BIN)/twistd --pidfile= -n ostore-standalone $(ARGS)

test: $(VENV)/.tools
	$(BIN)/python .ci/trial.py --jobs $(JOBS) $(COVERAGE) $(TESTS)

test-live: $(VENV)/.tools
	$(BIN)/python .ci/trial.py $(or $(TESTS),tests.live)

test-simulator: $(VENV)/.tools
	$(BIN)/python .ci/trial.py --jobs $(JOBS) $(or $(TESTS),tests.simulator)

simulate: $(VENV)/.tools
	$(BIN)/python -m tests.simulator --first $(FIRST) --seeds $(SEEDS) $(ARGS)

cluster: $(VENV)/.installed
	@$(BIN)/python -m tests.support.livecluster $(ARGS)

lint: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench bench-paths: $(VENV)/.installed
	$(BIN)/python benchmarks/hotpaths.py $(ARGS)

bench-command: $(VENV)/.installed
	$(BIN)/python benchmarks/command.py $(ARGS)

bench-cluster: $(VENV)/.installed
	$(BIN)/python benchmarks/cluster.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find ostore tests twisted benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "ostore needs Python 3.11 or later; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Compat mode: an ordinary editable install hides plugins from twistd.
$(VENV)/.installed: setup.py | $(BIN)/python
	$(PIP) --editable . --config-settings editable_mode=compat
	@touch $@

$(VENV)/.tools: requirements-dev.txt $(VENV)/.installed
	$(PIP) --requirement requirements-dev.txt
	@touch $@
