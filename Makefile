# Each target is complete on a fresh clone: it makes .venv/ when that is missing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Of 30,000 modules a fraction is ever imported: each is compiled by its first import.
# Where the environment forbids that, as images do, every process would compile all of torch again.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: run test check docs faults lock clean

run: $(STAMP)
	$(BIN)/collegium run recipes/digits.yaml --out out/digits

test: $(STAMP)
	$(BIN)/python -m pytest tests -m "not campaign" -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m docs.render

faults: $(STAMP)
	$(BIN)/python -m pytest tests -m campaign
	$(BIN)/python -m tests.faults

$(STAMP): requirements.lock requirements-oracles.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -r requirements-oracles.lock
	$(INSTALL) --no-deps --editable .
	touch $(STAMP)

lock: $(STAMP)
	(sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --exclude-editable \
	  | grep -v -i -E '^(textbrewer|torchdistill|torch.pruning|xgboost|catboost|nvidia-|triton|cuda)' | sed 's/+cpu//') > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
