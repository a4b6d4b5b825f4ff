# Every target says what it does: `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo up quick test test-mysql test-image-set compose-check bench soak lint typecheck format lock ledger clean
SHELL := /bin/sh
BIN := .venv/bin
export PYTHONPATH := $(CURDIR)/include
PORT ?= 8080
# Airflow makes its constraints at the release, so the image has the packages that were newest then.
# Development has the same versions of these packages, and its own tools.
AIRFLOW_RELEASED := 2026-09-17T09:00:00Z

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Everything into .venv (PYTHON=python3.12 chooses; YES=1 doesn't ask)
	@bin/setup

demo: setup  ## A Cognito pool arrives in Joget's tables, twice, through Airflow
	@$(BIN)/python -m demo run

up:  ## Airflow's UI over the demo's world, on 127.0.0.1 (PORT=8080); Ctrl-C stops it
	@bin/setup --quiet
	@$(BIN)/python -m demo up --port $(PORT)

# The pure rules: no server, no Airflow task. PURE_TESTS are small enough to run at each save.
PURE_TESTS := tests/test_design.py tests/test_architecture.py \
	$(patsubst %,tests/directory_sync/%.py,test_mapping test_run test_settings plan/test_planning)
quick: setup  ## Lint and the pure rules' tests, in half a minute: at each save
	@$(BIN)/ruff check --quiet .
	@HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q --numprocesses 2 $(PURE_TESTS)

test: export TESTS := 1
test: setup lint  ## Lint, types and every test
	@bin/setup-servers
	@echo "Tests, on MariaDB:"
	@$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

# `-m database` selects the tests that need Joget's database. Both servers refuse tables without a
# primary key, temporary ones too, as some managed services do. The first server takes files from
# clients. The second one takes none, so that rows go by another way: it gets the tests in
# WITHOUT_FILES, which send rows of every kind. So each test runs on MySQL once, except those in
# ANY_DATABASE.
WITHOUT_FILES := $(patsubst %,tests/directory_sync/%.py, \
	joget/test_writing joget/test_statements tasks/test_histories tasks/test_undo \
	plan/test_combinations plan/test_groups plan/test_matching plan/test_rules)
# The same on every database server: the pages and Cognito's side, which know no database, and a
# scheduler.
ANY_DATABASE := $(patsubst %,tests/directory_sync/%,pages cognito orchestration/test_reviews.py)
test-mysql: setup  ## The tests that need Joget's database, on MySQL: with local_infile, and without
	@bin/setup-mysql
	@echo "MySQL with local_infile:"
	@JOGET_DATABASE=mysql JOGET_DATABASE_OPTIONS="--local-infile=ON --sql-require-primary-key=ON" \
		$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m database \
		$(patsubst %,--ignore=%,$(WITHOUT_FILES) $(ANY_DATABASE)) \
		tests/directory_sync tests/faults/test_database.py
	@echo "MySQL without local_infile:"
	@JOGET_DATABASE=mysql JOGET_DATABASE_OPTIONS="--local-infile=OFF --sql-require-primary-key=ON" \
		$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m database $(WITHOUT_FILES)

test-image-set: export AIRFLOW_RELEASED := $(AIRFLOW_RELEASED)
test-image-set: setup  ## The tests on the set of packages that the image has (CONSTRAINTS=… names Airflow's file)
	@bin/test-image-set

compose-check:  ## The compose file on a Docker engine: build, start the demo, run the DAG, read a page, stop
	@python3 -m demo.compose_check

bench: setup  ## How fast it is, beside raw SQL and what people would use instead (MILLION=1: a million users too)
	@$(BIN)/python -m bench $(if $(MILLION),--million)

soak: setup  ## Kill the sync 200 times at random moments, and see that it recovers (KILLS=200 SEED=number)
	@AIRFLOW__LOGGING__LOGGING_LEVEL=ERROR KILLS=$(KILLS) SEED=$(SEED) $(BIN)/python -m soak

lint: typecheck  ## ruff and mypy
	@echo "Lint:"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

typecheck:  ## mypy alone
	@echo "Types:"
	@$(BIN)/mypy

format:  ## Let ruff write the code's form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:  ## Resolve requirements.lock anew, for every Python we promise, with the image's versions
	@mkdir -p build
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header \
		--exclude-newer $(AIRFLOW_RELEASED) requirements-image.txt -o build/image-set.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--constraints build/image-set.txt requirements-dev.txt -o requirements.lock

ledger: setup  ## Keep this release's ledger, which later releases' tests upgrade (before a release)
	@$(BIN)/python -m tests.ledgers

clean:  ## Remove .venv, .image-set, .mysql, .servers and caches
	@rm -rf .venv .image-set .mysql .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis build
