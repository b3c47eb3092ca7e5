#!/bin/bash
# Good guess: convert() stores the integers that quantisation-aware training computed with, because
# both come from one fake quantiser and its observed range.
# What happens: while it observes, the fused fake quantiser of symmetric INT8 weights (-128..127)
# takes max(|min| / 128, max / 127) as its scale. Its calculate_qparams(), which convert() asks,
# takes the largest magnitude / 127.5. The scales differ by 0.4 %, and about a quarter of the
# integers of a fresh layer move.
# Versions: torch 2.13.0 (torch.ao.quantization, the default settings for x86).
# Why it matters: the converted model is not the trained one, and comparing the two bit by bit
# fails. Weft takes the scale that the fake quantiser holds, so it compiles the trained integers;
# from a converted model it takes those of the conversion.
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
from torch.ao import quantization as ao

torch.manual_seed(0)
model = ao.QuantWrapper(nn.Linear(64, 32)).train()
model.qconfig = ao.get_default_qat_qconfig("x86")
ao.prepare_qat(model, inplace=True)
model(torch.randn(16, 64))
weight, fake = model.module.weight.detach(), model.module.weight_fake_quant
trained = (fake(weight) / fake.scale[:, None]).round().int()
converted = ao.convert(model.eval()).module.weight().int_repr().int()
largest = weight.abs().amax(1)
changed = (trained != converted).sum().item()
print("torch", torch.__version__, type(fake).__name__)
print("largest weight / scale in training: ", (largest / fake.scale)[:5].tolist())
print("largest weight / scale at convert():", (largest / fake.calculate_qparams()[0])[:5].tolist())
print(f"integers that convert() changes: {changed} of {weight.numel()}")
if not changed:
    sys.exit("not reproduced: convert() keeps the integers")
PYTHON
