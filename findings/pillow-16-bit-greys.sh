#!/bin/bash
# Good guess: `Image.open(path).convert("RGB")` gives a PNG's picture in 8 bits, whatever its depth; 16-bit greys
# become the 8-bit greys that look like them.
# What happens: greys of 16 bits (mode I;16) are not scaled but clipped: all above 255 is white. A scan of 16 bits
# becomes a white picture, without a warning.
# Versions: Pillow 13.0.0 with numpy 2.4.6.
# Why it matters: medical and depth pictures are such PNGs; a model then sees nothing. Weft takes the high bytes
# itself (sw/models/pictures.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/ramp.png" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
Image.fromarray(ramp).save(sys.argv[1])
opened = Image.open(sys.argv[1])
grey = np.asarray(opened.convert("RGB"))[0, :, 0]
print("Pillow", PIL.__version__, "mode", opened.mode)
print(f"of 256 greys from black to white, {(grey == 255).sum()} are white")
if (grey == 255).sum() < 250:
    sys.exit("not reproduced: greys of 16 bits are not clipped")
PYTHON
