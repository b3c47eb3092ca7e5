#!/bin/bash
# Good guess: save() of an array that is not contiguous (a transpose, a reversed or strided view)
# writes its values in the order of the array, or refuses it as the PyTorch half does.
# What happens: it writes the memory below the view. Loaded, the array has the right name, type and
# shape, and its values in another order. No error and no warning.
# Versions: safetensors 0.8.0 (NumPy half).
# Why it matters: weights are transposed on the way between frameworks, and W.T is such a view. A
# square matrix looks intact. Weft seals its files with a SHA-256 of the values in the array's
# order, and compares it whenever it reads one: values in another order are reported as damage.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy
import safetensors
from safetensors.numpy import load, save

x = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
print("safetensors", safetensors.__version__, "numpy", numpy.__version__)
equal = {}
for name, array in {
    "x": x,
    "x.T": x.T,
    "ascontiguousarray(x.T)": numpy.ascontiguousarray(x.T),
}.items():
    loaded = load(save({"w": array}))["w"]
    equal[name] = loaded.shape == array.shape and bool((loaded == array).all())
    print(f"{name}: {array.tolist()} loads as {loaded.tolist()}")
if list(equal.values()) != [True, False, True]:
    sys.exit("not reproduced: the transpose loads as it was saved")
PYTHON
