#!/bin/bash
# Good guess: where pytest is installed, cocotb lets it rewrite the assertions of test modules, as pytest
# itself does, so that a failure shows values.
# What happens: every module with an assertion that is imported afterwards is rewritten, those of installed
# libraries too: COCOTB_REWRITE_ASSERTION_FILES is "*.py" when it is not set.
# Versions: cocotb 2.1.0 with pytest 9.2.0 and numpy 2.4.6.
# Why it matters: each simulation parses and compiles its libraries again, here NumPy and Amaranth: two
# seconds of each start, the larger part of a test of a small unit. Weft's runner sets the variable to
# nothing; COCOTB_REWRITE_ASSERTION_FILES="cocotb_*.py" is the way to see values.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    cocotb==2.1.0 pytest==9.2.0 numpy==2.4.6

cd "$folder"  # pytest looks for a configuration there
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON' || { tail -n 1 "$folder/log" >&2; exit 1; }
import sys
from importlib.metadata import version

# What a simulation does before it imports its test modules.
from cocotb.regression import RegressionManager

RegressionManager.setup_pytest_assertion_rewriting()

import numpy

rewritten = sorted(
    name for name, module in sys.modules.items()
    if name.startswith("numpy.") and "@pytest_ar" in vars(module)
)
print(f"cocotb {version('cocotb')}, pytest {version('pytest')}, numpy {version('numpy')}")
print(f"{len(rewritten)} modules of NumPy are rewritten, {', '.join(rewritten[:3])} among them")
if not rewritten:
    sys.exit("cocotb leaves libraries as they are: the finding is no longer true")
PYTHON
