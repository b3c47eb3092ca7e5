#!/bin/bash
# Good guess: SoundFile.blocks, or read(4000) again and again, gives the samples that read() gives at once; and
# read(start=n) those from n on.
# What happens: for MP3 it does not. Behind the first few thousand samples what comes is no shifted copy but broken
# sound, with errors as large as the signal, and the right number of samples; libmpg123 may print a line on stderr.
# Reading a block ends with a seek to where the file is anyway, and behind a seek in an MP3 frames are decoded without
# the bits that stand in the frames before. WAV, FLAC and Ogg are equal to the last bit.
# Versions: soundfile 0.14.0 (libsndfile 1.2.2 inside).
# Why it matters: what listens to long files in windows hears something else than what reads them whole. Weft reads
# files whole (sw/speech/audio.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.1

cat > "$folder/blocks.py" <<'PYTHON'
import sys

import numpy as np
import soundfile

time = np.arange(64_000) / 16_000
sweep = (0.5 * np.sin(2 * np.pi * (200 * time + 300 * time**2))).astype(np.float32)
worst = {}
for name in ("sweep.wav", "sweep.flac", "sweep.ogg", "sweep.mp3"):
    soundfile.write(name, sweep, 16_000)
    whole, _ = soundfile.read(name)
    with soundfile.SoundFile(name) as file:
        blocks = np.concatenate(list(file.blocks(blocksize=4000)))
    later, _ = soundfile.read(name, start=32_000)
    assert len(blocks) == len(whole) == 64_000 and len(later) == 32_000
    worst[name] = [float(np.abs(a - b).max()) for a, b in ((blocks, whole), (later, whole[32_000:]))]
    print(f"{name}: largest difference to the whole: blocks {worst[name][0]:.6f}, from 2 s on {worst[name][1]:.6f}")
versions = soundfile.__version__, soundfile.__libsndfile_version__
print("soundfile {}, libsndfile {}; the sweep's amplitude is 0.5".format(*versions))
broken = worst.pop("sweep.mp3")
sys.exit(not (min(broken) > 0.1 and max(map(max, worst.values())) < 1e-6))
PYTHON
cd "$folder" && venv/bin/python blocks.py 2> messages
