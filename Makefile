# make demo      run the main job end to end and say where to look
# make test      lint, types, floors and the fast tests
# make test-all  the slow tests too
# make bench     every benchmark, figures into bench/
# TORCH=cpu (default) or cuda: which torch `make model` installs

PYTHON ?= python3.11
TORCH ?= cpu
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all lint format bench model clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/earthgptx demo --out demo

test: lint
	$(BIN)/pytest

test-all: lint
	$(BIN)/pytest -m "slow or not slow"

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	mkdir -p bench
	for name in quality engine plan; do $(BIN)/python -m benchmarks.$$name --json bench/$$name.json || exit 1; done

# The network's torch. On Linux the wheel of that name on PyPI is the CUDA build; uv knows where the CPU build is.
# Where only a package index is in reach, pip takes what that offers.
model: $(STAMP)
ifeq ($(TORCH),cuda)
	$(BIN)/uv pip install --python $(BIN)/python -c requirements.lock torch==2.13.0
else
	$(BIN)/uv pip install --python $(BIN)/python --torch-backend cpu torch==2.13.0 2>/dev/null \
	  || $(BIN)/pip install -c requirements.lock torch==2.13.0
endif

$(STAMP): pyproject.toml requirements.lock
	@echo "== making .venv and installing about 2 GB of packages; half a minute to three minutes, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --python $(BIN)/python --quiet -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@touch $@
	@echo "== installed"

clean:
	rm -rf .venv demo bench
