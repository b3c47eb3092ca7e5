#!/bin/bash
# Good guess: an additive float src_mask of nn.TransformerEncoderLayer is added to the scores, with
# gradients or without; torch.no_grad() changes no result beyond rounding.
# What happens: without gradients an encoder layer in eval mode takes its fused kernel, which hides
# every key whose mask value is not 0. A bias that falls with the distance (0 for the token itself)
# lets each token see itself only. For masks of 0 and -inf both ways agree, so common use hides it.
# Versions: torch 2.13.0 on a CPU.
# Why it matters: relative positions and slopes are such biases, and inference is where no_grad()
# is used. Weft traces modules in the way that adds the bias, so its results are those with
# gradients. A program in which the layer is fused already compiles to what the kernel computes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
x = torch.randn(2, 5, 16)
place = torch.arange(5.0)
slope = -0.1 * (place[:, None] - place).abs()
only_self = torch.zeros(5, 5).masked_fill(slope != 0, float("-inf"))
causal = torch.zeros(5, 5).masked_fill(place > place[:, None], float("-inf"))


def error(mask, other):
    """With gradients and `other` against no_grad() and `mask`."""
    with torch.no_grad():
        fused = layer(x, src_mask=mask)
    return (layer(x, src_mask=other) - fused).abs().max().item()


print("torch", torch.__version__)
print(f"causal mask, no_grad against gradients:        {error(causal, causal):.6f}")
print(f"slope, no_grad against gradients:              {error(slope, slope):.6f}")
print(f"slope under no_grad against 'itself only':     {error(slope, only_self):.6f}")
if error(slope, slope) < 1e-3 or error(slope, only_self) > 1e-5:
    sys.exit("not reproduced: the bias is added under no_grad() too")
PYTHON
