# Two commands set themselves up from a bare machine: `make quickstart` and `make test`. `make setup` is all that a contributor
# needs: the environment and the git hooks. `make image` and `make dist` are what a release is made of.
# PYTHON names the interpreter for .venv (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup quickstart test lint docs reference unit docker image dist clean

setup: $(INSTALLED)
	if [ -e .git ]; then $(BIN)/pre-commit install; fi

$(INSTALLED): pyproject.toml constraints.txt scripts/install.sh
	sh scripts/install.sh $(PYTHON)
	touch $@

docker: $(INSTALLED)
	$(BIN)/swe-srl env docker

quickstart: docker
	$(BIN)/swe-srl quickstart

test: lint unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs build/docs

reference: $(INSTALLED)
	$(BIN)/python scripts/reference.py

unit: docker
	$(BIN)/python -m pytest -n 3 --dist loadgroup --durations 30

image:
	PYTHON=$(PYTHON) sh scripts/image.sh -t swe-srl

dist: $(INSTALLED)
	$(BIN)/python -m build

clean:
	rm -rf .venv runs build dist *.egg-info
