#!/bin/bash
# Good guess: eSpeak NG is a formant synthesiser of tables: the same text, voice and settings are the same samples in
# every process, with samples taken synchronously, so its speech may stand in tests.
# What happens: that holds for voices such as `en-us`, `en-us+f1` and `en-us+m3`. Variants with breath in their
# description (`+f2`, `+f3`) have other samples, of the same number, in processes that start in different seconds. And
# within a process the second time differs from the first, for each voice tried, even after `espeak_Terminate` and
# `espeak_Initialize`.
# Versions: espeakng-loader 0.2.4 (its library says 1.52.0).
# Why it matters: models that are calibrated or measured on such speech are others each time. Weft says texts in a
# process of their own, with voices without breath (sw/speech/synthesis.py).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check espeakng-loader==0.2.4

cat > "$folder/say.py" <<'PYTHON'
import ctypes
import hashlib
import sys

import espeakng_loader

library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
TEXT = b"The winter my father lost his job.\0"
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def say(voice):
    digest = hashlib.sha256()

    @CALLBACK
    def take(samples, count, _events):
        if samples and count:
            digest.update(ctypes.string_at(samples, 2 * count))
        return 0

    synchronous = 2
    library.espeak_Initialize(synchronous, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    library.espeak_SetSynthCallback(take)
    library.espeak_SetVoiceByName(voice.encode())
    library.espeak_Synth(TEXT, len(TEXT), 0, 0, 0, 1, None, None)
    library.espeak_Terminate()
    return digest.hexdigest()[:8]


print(*(say(sys.argv[1]) for _ in range(2)))
PYTHON

for voice in en-us en-us+f1 en-us+f3; do
    for process in 1 2 3 4; do
        sleep 1.1  # in different seconds
        "$folder/venv/bin/python" "$folder/say.py" $voice > "$folder/$voice.$process"
        echo "$voice, process $process, first and second time: $(cat "$folder/$voice.$process")"
    done
    cut -d' ' -f1 "$folder/$voice".? | sort -u | wc -l > "$folder/$voice.kinds"
done
echo "espeakng-loader 0.2.4, different first times of 4: $(cat "$folder"/*.kinds | tr '\n' ' ')"
read -r first second < "$folder/en-us.1"
if [ "$(cat "$folder/en-us.kinds")" != 1 ] || [ "$(cat "$folder/en-us+f3.kinds")" = 1 ] || [ "$first" = "$second" ]; then
    echo "not reproduced: breath is the same each time, or nothing is kept between texts" >&2
    exit 1
fi
