"""Speech that a program says, to calibrate on: eSpeak NG, from a pip package."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["say"]

INSTALL = "pip install espeakng-loader==0.2.4"
SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to a callback, in this thread
NO_PLAYBACK_ERRORS = 0x8000  # espeakINITIALIZE_DONT_EXIT
UTF8 = 1
RATE, PITCH = 1, 3  # espeakRATE, espeakPITCH
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def say(texts: Sequence[tuple[str, str, int, int]]) -> tuple[list[np.ndarray], int]:
    """Samples (float32, -1..1) of each (text, voice, words a minute, pitch 0..99), and their rate.

    The same texts give the same samples, so they are said in a process of their own: the library
    keeps something of each text for the next one, and would say it otherwise. Voices with breath
    (`+f2`, `+f3`) are no use all the same: its noise is another in another second.
    Raises `FileNotFoundError` without the package.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise FileNotFoundError(f"speech to calibrate on is missing: {INSTALL}")
    command = [sys.executable, "-m", "sw.speech.synthesis"]
    child = subprocess.run(command, input=json.dumps([*texts]).encode(), capture_output=True)
    if child.returncode:
        raise OSError(child.stderr.decode().strip().splitlines()[-1])
    with np.load(io.BytesIO(child.stdout)) as said:
        return [said[str(number)] for number in range(len(texts))], int(said["rate"])


def _say(texts: Sequence[tuple[str, str, int, int]]) -> tuple[list[np.ndarray], int]:
    """`say`, in this process."""
    loader = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(str(loader.get_library_path()))
    data = str(loader.get_data_path()).encode()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, NO_PLAYBACK_ERRORS)
    if rate <= 0:
        raise OSError(f"eSpeak NG does not find its data in {data.decode()}")
    parts: list[np.ndarray] = []

    @CALLBACK
    def take(samples, count, _events) -> int:
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(take)
    results = []
    for text, voice, speed, pitch in texts:
        parts.clear()
        library.espeak_SetVoiceByName(voice.encode())
        library.espeak_SetParameter(RATE, speed, 0)
        library.espeak_SetParameter(PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        library.espeak_Synth(encoded, len(encoded), 0, 0, 0, UTF8, None, None)
        results.append(np.concatenate([*parts, np.zeros(0, np.int16)]).astype(np.float32) / 2**15)
    library.espeak_Terminate()
    return results, rate


def _main() -> None:
    results, rate = _say(json.load(sys.stdin.buffer))
    found = io.BytesIO()
    arrays: dict[str, Any] = {str(number): said for number, said in enumerate(results)}
    np.savez(found, rate=np.array(rate), **arrays)
    sys.stdout.buffer.write(found.getvalue())


if __name__ == "__main__":
    _main()
