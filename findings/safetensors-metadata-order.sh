#!/bin/bash
# Good guess: a format without compression or time stamps is reproducible: the same arrays and
# the same metadata give the same bytes.
# What happens: with several metadata keys each call may write them in another order, also within
# one process, whatever order the dictionary has. One key, or none, gives the same bytes.
# Versions: safetensors 0.8.0 (NumPy half).
# Why it matters: checksums of files, caches by content and reproducible builds see a change where
# there is none. Weft sorts the metadata of program and graph files after the library has written
# them, so the same program saved twice is the same file.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys

import numpy
import safetensors
from safetensors.numpy import save

arrays = {"x": numpy.arange(4)}
print("safetensors", safetensors.__version__)
distinct = {}
for keys in ("a", "abcdef"):
    files = [save(arrays, {key: "value" for key in keys}) for _ in range(20)]
    distinct[keys] = len(set(files))
    print(f"{len(keys)} metadata keys, saved 20 times: {distinct[keys]} different files")
for data in files[:3]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    print("  order in the file:", *header["__metadata__"])
if distinct["a"] != 1 or distinct["abcdef"] == 1:
    sys.exit("not reproduced: the bytes are the same each time")
PYTHON
