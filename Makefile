# Every target says what it does: `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo up test bench lint format lock clean
SHELL := /bin/sh
BIN := .venv/bin
PORT ?= 8080

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Everything into .venv (PYTHON=python3.12 chooses; YES=1 doesn't ask)
	@bin/setup

demo: setup  ## A Cognito pool arrives in Joget's tables, twice, through Airflow
	@$(BIN)/python -m demo run

up:  ## Airflow's UI over the demo's world, on 127.0.0.1 (PORT=8080); Ctrl-C stops it
	@bin/setup --quiet
	@$(BIN)/python -m demo up --port $(PORT)

test: export TESTS := 1
test: setup lint  ## Lint, types and every test
	@$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

bench: setup  ## How fast it is, beside raw SQL and what people would use instead (MILLION=1: a million users too)
	@$(BIN)/python -m bench $(if $(MILLION),--million)

lint:  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format:  ## Let ruff write the code's form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:  ## Resolve requirements.lock anew, for every Python we promise
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		requirements-dev.txt -o requirements.lock

clean:  ## Remove .venv and caches
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build
