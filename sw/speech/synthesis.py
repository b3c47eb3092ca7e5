"""Speech that a program says, to calibrate on: eSpeak NG, from a pip package."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Sequence

import numpy as np

__all__ = ["say"]

INSTALL = "pip install espeakng-loader==0.2.4"
RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to a callback
NO_PLAYBACK_ERRORS = 0x8000  # espeakINITIALIZE_DONT_EXIT
UTF8 = 1
RATE, PITCH = 1, 3  # espeakRATE, espeakPITCH
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def say(texts: Sequence[tuple[str, str, int, int]]) -> tuple[list[np.ndarray], int]:
    """Samples (float32, -1..1) of each (text, voice, words a minute, pitch 0..99), and their rate.

    Raises `FileNotFoundError` without the package.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise FileNotFoundError(f"speech to calibrate on is missing: {INSTALL}")
    loader = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(str(loader.get_library_path()))
    data = str(loader.get_data_path()).encode()
    rate = library.espeak_Initialize(RETRIEVAL, 0, data, NO_PLAYBACK_ERRORS)
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
        library.espeak_Synchronize()
        results.append(np.concatenate([*parts, np.zeros(0, np.int16)]).astype(np.float32) / 2**15)
    library.espeak_Terminate()
    return results, rate
