# dicomq: see `make help`
SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Most tests wait for servers, so there are more at a time than processors; PYTEST_ARGS adds
# options, e.g. PYTEST_ARGS="-k coalescing -x"
PYTEST_WORKERS ?= $(shell expr $$(nproc) + 1)
PYTEST := $(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --dist loadgroup $(PYTEST_ARGS)

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the Python, VENV=dir the place of the environment,"
	@echo "  DICOMQ_DATA=dir the data directory, DATABASE_URL and REDIS_URL servers of your own."

.PHONY: venv
venv: ## Make the virtual environment from requirements.lock, hashes checked
	@deploy/venv.sh $(VENV) requirements.lock $(PYTHON)

.PHONY: venv-dev
venv-dev: ## The same with the tools for tests and checks
	@deploy/venv.sh $(VENV) requirements-dev.lock $(PYTHON)

.PHONY: run
run: venv ## Start everything: DICOM DCM4CHEE@localhost:11112, Flower http://localhost:5555
	@exec $(BIN)/python -m deploy.run

.PHONY: demo
demo: venv ## Show an export and its notification between real peers
	@exec $(BIN)/python -m deploy.demo

.PHONY: test-packages
test-packages: ## Install the servers and tools that the tests use, where apt-get may
	@deploy/test_packages.sh

.PHONY: test
test: venv-dev test-packages ## Run all tests
	@$(PYTEST) tests

.PHONY: test-unit
test-unit: venv-dev ## Run the tests that need no server
	@$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: venv-dev test-packages ## Run the tests of one room against real servers
	@$(PYTEST) tests/integration

.PHONY: test-faults
test-faults: venv-dev test-packages ## Run the tests that kill processes and misuse peers
	@$(PYTEST) tests/faults

.PHONY: chaos
chaos: venv-dev test-packages ## Random faults over the whole system: SECONDS=600 SEED=n
	@CHAOS_SECONDS=$(or $(SECONDS),600) CHAOS_SEED=$(SEED) \
	  $(BIN)/python -m pytest -s -p no:randomly tests/faults/test_chaos.py

.PHONY: fuzz
fuzz: venv-dev ## Mutated PDUs against the receiving side: MUTATIONS=1000000 SEED=n
	@$(BIN)/python -m tests.fuzz --mutations $(or $(MUTATIONS),1000000) $(if $(SEED),--seed $(SEED))

.PHONY: test-acceptance
test-acceptance: venv-dev test-packages ## Run the tests of the whole system as a user sees it
	@$(PYTEST) tests/acceptance

.PHONY: bench
bench: venv-dev test-packages ## Measure everything beside its peers and targets (an idle machine, half an hour)
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: test-compose
test-compose: venv-dev ## Build and run the docker-compose stack, kill containers: SECONDS=60 SEED=n
	@deploy/test_packages.sh compose
	@deploy/compose/wheels.sh $(BIN)/python
	@DICOMQ_TEST_COMPOSE=$(or $(SECONDS),60) CHAOS_SEED=$(SEED) \
	  $(BIN)/python -m pytest -s -p no:randomly tests/acceptance/test_compose*.py

.PHONY: up
up: ## Build and start the docker-compose stack; makes secrets and deploy/.env on first run
	@PYTHON=$(PYTHON) deploy/compose/up.sh $(UP_ARGS)

.PHONY: down
down: ## Stop the docker-compose stack; what it stores is kept
	@deploy/compose/compose.sh --profile monitoring down

.PHONY: logs
logs: ## Follow the logs of the docker-compose stack: make logs SERVICE=scp
	@deploy/compose/compose.sh logs --follow --tail=200 $(SERVICE)

.PHONY: bench-check
bench-check: venv-dev test-packages ## The short benchmarks; fails when a ratio is 30 % worse than recorded
	@$(BIN)/python -m benchmarks --quick --check

.PHONY: check
check: venv-dev ## Check format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: venv-dev ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: lock
lock: venv-dev ## Write the lock files anew; LOCK_ARGS=--upgrade takes newer versions
	@deploy/lock.sh $(BIN)/uv $(LOCK_ARGS)

.PHONY: clean
clean: ## Remove the environment and everything made, but not the data
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +
