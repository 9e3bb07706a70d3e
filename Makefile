# Targets the continuous integration calls. The environment lives in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test lint types docs bench wheel check

install:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e ".[test]"

test:
	$(BIN)/python -m pytest -n 2

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

docs:
	$(BIN)/python docs/generate.py --check

bench:
	$(BIN)/python bench/speed.py

wheel:
	$(BIN)/python -m hatchling build -t wheel

check: lint types docs test
