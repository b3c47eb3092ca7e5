#!/bin/bash
# Good guess: torch.export traces with fake tensors, so no number of the module changes; and a
# module that counts in a plain tensor attribute (`self.count += 1`) is either refused or exported
# in the state that it has.
# What happens: the non-strict trace runs the in-place operation on the real tensor. The caller's
# module has counted once without a call, and the program starts from there: its results
# are one call ahead of the module's. Export itself refuses nothing; run_decompositions() does,
# when the tensor has changed already. With strict=True the tensor keeps its value, and a warning
# speaks of side effects.
# Versions: torch 2.13.0.
# Why it matters: counters and caches are often plain attributes. Weft traces a copy whose plain
# tensors are its own, so that the caller's stay, and refuses such a module by the tensor's name.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn


class Count(nn.Module):
    def __init__(self):
        super().__init__()
        self.count = torch.zeros(1)

    def forward(self, x):
        self.count += 1
        return x + self.count


print("torch", torch.__version__)
x = torch.zeros(1)
print("module, first call:", Count()(x).item())
found = {}
for strict in (False, True):
    module = Count()
    program = torch.export.export(module, (x,), strict=strict)
    found[strict] = module.count.item(), program.module()(x).item()
    print("strict=%s: count after export %g, program's first call %g" % (strict, *found[strict]))
    try:
        program.run_decompositions()
    except RuntimeError as error:
        print("  run_decompositions():", error)
if found[False] != (1, 2):
    sys.exit("not reproduced: export leaves the tensor as it was")
PYTHON
