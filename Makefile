# Two commands for users: `make demo` and `make test`. Both work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-all test bench synth netlist prove setup lint docs clean

demo: $(STAMP)
	$(BIN)/weft demo

# Language, speech, sight and tags as well: 410 MB of models, then ten minutes to quantise them once.
demo-all: $(STAMP)
	@scripts/setup-tools smollm2 "$(VENV)"
	@scripts/setup-tools speech "$(VENV)"
	@scripts/setup-tools vision "$(VENV)"
	@scripts/setup-tools rampart "$(VENV)"
	$(BIN)/weft demo --all

test: $(STAMP)
	@scripts/setup-tools icarus
	@scripts/setup-tools torchao "$(VENV)"
	@scripts/setup-tools smollm2 "$(VENV)"
	@scripts/setup-tools explore "$(VENV)"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(STAMP)
	$(BIN)/weft bench all

synth: $(STAMP)
	$(BIN)/weft bench area

# Yosys' netlist of `tiny` with every option, beside the small one of `make test`: minutes.
netlist: $(STAMP)
	WEFT_TEST_NETLIST=tiny $(BIN)/python -m pytest -rP tests/sim/test_netlist.py

# What docs/verification.md calls proved, and the units broken on purpose: minutes.
prove: $(STAMP)
	$(BIN)/python -m formal

setup: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(STAMP)
	$(BIN)/python -m sw.cli.isa_document > docs/isa.md

$(STAMP): pyproject.toml constraints.txt scripts/setup-tools
	@scripts/setup-tools venv "$(PYTHON)" "$(VENV)"
	@touch $@

clean:
	rm -rf build $(VENV)
