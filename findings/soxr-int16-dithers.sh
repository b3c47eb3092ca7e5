#!/bin/bash
# Good guess: soxr.resample of 16-bit samples gives what resampling the same values in float gives, rounded; so silence
# stays silence.
# What happens: the result is dithered. Resampled zeros are -1, 0 and 1 (about a fifth are not 0), the same in each
# call, and about 3 of 10 samples of a sine differ from the rounded ones. Float samples are not touched.
# Versions: soxr 1.1.0 (libsoxr inside).
# Why it matters: silence has a log-mel spectrogram of noise at -96 dB instead of the floor, and tests that compare the
# two paths of 16-bit and float samples fail. Weft resamples in float (sw/speech/audio.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soxr==1.1.0 numpy==2.4.1

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import soxr

silence = np.zeros(48_000, np.int16)
quiet = soxr.resample(silence, 48_000, 16_000)
noisy = float(np.mean(quiet != 0))
sine = (1000 * np.sin(np.arange(48_000) / 20)).astype(np.int16)
in_16_bits = soxr.resample(sine, 48_000, 16_000)
in_float = np.rint(soxr.resample(sine.astype(np.float64), 48_000, 16_000))
differ = float(np.mean(in_16_bits != in_float))
float_silence = soxr.resample(silence.astype(np.float32), 48_000, 16_000)
print(f"soxr {soxr.__version__}: silence becomes {sorted(set(quiet.tolist()))}, {noisy:.1%} of it not 0;")
print(f"{differ:.1%} of a sine differ from float's, rounded; float silence stays 0: {not float_silence.any()}")
sys.exit(not (noisy > 0.05 and differ > 0.05 and not float_silence.any()))
PYTHON
