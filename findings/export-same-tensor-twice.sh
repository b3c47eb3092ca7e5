#!/bin/bash
# Good guess: example inputs give shapes and types only, so that export(module, (t, t)) makes a
# program of two inputs, as export(module, (t, t.clone())) does.
# What happens: the trace tells inputs apart by the tensor object. Both uses read one placeholder,
# the other has no user, and for two different tensors the program returns something else than
# the module. No error, no warning, and both inputs are still asked for.
# Versions: torch 2.13.0, strict or not.
# Why it matters: an example such as (ids, ids) is easily written for token numbers and segment
# numbers. Weft copies every example tensor before it exports a module. In a program that was
# exported before Weft sees it the lost input cannot be told from one that is unused on purpose.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.segments = nn.Embedding(9, 2), nn.Embedding(9, 2)

    def forward(self, words, segments):
        return self.words(words) + self.segments(segments)


torch.manual_seed(0)
module = Sum().eval()
a, b = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
print("torch", torch.__version__)
lost = []
for name, example in (("t, t.clone()", (a, a.clone())), ("t, t", (a, a))):
    program = torch.export.export(module, example)
    users = {n.name: len(n.users) for n in program.graph.nodes if n.name in ("words", "segments")}
    error = (program.module()(a, b) - module(a, b)).abs().max().item()
    print(f"example ({name}): users of the inputs {users}, largest error {error:.3f}")
    lost.append(error > 0 and 0 in users.values())
if lost != [False, True]:
    sys.exit("not reproduced: both inputs are read")
PYTHON
