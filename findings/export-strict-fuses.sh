#!/bin/bash
# Good guess: strict=True and strict=False differ in how Python is traced, not in the operations
# that come out; and run_decompositions() leaves core operations only.
# What happens: under no_grad() a strict export of an encoder layer holds one operation,
# aten._transformer_encoder_layer_fwd, with all weights as its arguments. The non-strict one holds
# linears, attention and norms. run_decompositions() has no rule for the fused operation and
# leaves it as it is.
# Versions: torch 2.13.0 on a CPU.
# Why it matters: a compiler that looks for linears in an exported program finds none. Weft traces
# modules non-strict, and takes the fused operation apart itself where a given program has it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")


def operations(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
x = torch.randn(2, 5, 16)
print("torch", torch.__version__)
found = {}
for strict in (False, True):
    with torch.no_grad():
        program = torch.export.export(layer, (x,), strict=strict)
    plain, core = operations(program), operations(program.run_decompositions())
    found[strict] = core
    print(f"strict={strict}: {len(plain)} operations, first {plain[0]}")
    print(f"  after run_decompositions(): {len(core)}, first {core[0]}")
if len(found[False]) == 1 or found[True] != ["aten._transformer_encoder_layer_fwd.default"]:
    sys.exit("not reproduced: both ways give the same operations")
PYTHON
