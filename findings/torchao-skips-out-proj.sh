#!/bin/bash
# Good guess: quantize_(module, Int8WeightOnlyConfig()) quantises every nn.Linear below `module`.
# What happens: the output projection of nn.MultiheadAttention stays in float. It is an nn.Linear
# for isinstance(), but of a subclass that the default filter leaves out. The feed-forward layers
# of the same encoder layer are quantised. Nothing says which were skipped.
# Versions: torchao 0.18.0 with torch 2.13.0.
# Why it matters: in an encoder of nn.TransformerEncoderLayer all of attention stays in float
# (Q, K and V are one plain parameter there). Weft keeps the integers that torchao gives and
# quantises the rest itself, so such a model has weights of both origins.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchao==0.18.0 torch==2.13.0 numpy==2.4.6

# Standard error has only what torchao says about GPU kernels that it cannot load here.
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON' || { tail -n 1 "$folder/log" >&2; exit 1; }
import sys
from importlib.metadata import version

from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True).eval()
linears = {name: part for name, part in layer.named_modules() if isinstance(part, nn.Linear)}
quantize_(layer, Int8WeightOnlyConfig())
print("torchao", version("torchao"), "torch", version("torch"))
skipped = []
for name, part in linears.items():
    kind = type(part.weight).__name__
    print(f"{name:20} {type(linears[name]).__name__:32} weight: {kind}")
    if kind == "Parameter":
        skipped.append(name)
if skipped != ["self_attn.out_proj"]:
    sys.exit("not reproduced: every linear is quantised")
PYTHON
