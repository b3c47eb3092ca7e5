#!/bin/bash
# Good guess: in a GGUF block of Q4_0, w = d * (q - 8), d is the distance of two levels, so it is positive and
# a larger q is a larger weight.
# What happens: the weight of largest magnitude of a block always gets q = 0, and d takes its sign with it. In about
# half of the blocks d is negative, and the levels run from the largest weight down to the smallest.
# Versions: gguf 0.19.0 with numpy 2.4.6.
# Why it matters: hardware with an unsigned scale, or code that sorts levels by q, is wrong for half of the blocks and
# right for the others; a positive block reaches -8 d .. 7 d, a negative one -7 |d| .. 8 |d|. In Q4_1 the distance
# is never negative. Weft finds levels in the weights themselves, in rising order (sw/compiler/quantise/scaled.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import dequantize, quantize

weights = np.random.default_rng(0).normal(0, 1, (256, 256)).astype(np.float32)
print("gguf", version("gguf"))
share = {}
for kind, size in ((Kind.Q4_0, 18), (Kind.Q4_1, 20)):
    blocks = quantize(weights, kind).reshape(-1, size)
    distance = np.ascontiguousarray(blocks[:, :2]).view(np.float16)[:, 0]
    values = np.concatenate([blocks[:, -16:] & 15, blocks[:, -16:] >> 4], axis=1)
    found = dequantize(blocks.reshape(256, -1), kind).reshape(-1, 32)
    largest = np.abs(found).argmax(axis=1)
    share[kind] = float((distance < 0).mean())
    at_0 = float((np.take_along_axis(values, largest[:, None], axis=1) == 0).mean())
    print(f"{kind.name}: distance negative in {share[kind]:.0%} of the blocks;", end=" ")
    print(f"largest magnitude at q = 0 in {at_0:.0%}")
if not (0.3 < share[Kind.Q4_0] < 0.7 and share[Kind.Q4_1] == 0):
    sys.exit("not reproduced: no block of Q4_0 runs backwards")
PYTHON
