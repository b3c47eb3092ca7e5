"""Audio files as what Whisper hears: samples of 16 kHz, and spectrograms of windows.

Libraries do all of it: soundfile reads, soxr resamples, transformers makes the spectrogram.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from sw.compiler.errors import InputError, first_line

__all__ = ["RATE", "SECONDS", "WINDOW", "read_audio", "spectrogram", "to_rate"]

RATE = 16_000
SECONDS = 30
"""Of a window that Whisper was trained with."""
WINDOW = SECONDS * RATE
"""Its samples."""
INSTALL = "pip install soundfile==0.14.0 soxr==1.1.0"


def to_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mono samples at `RATE`."""
    if rate == RATE:
        return samples
    soxr = _library("soxr")
    return soxr.resample(samples, rate, RATE)


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise InputError(f"reading audio needs {name}: {INSTALL}") from None


def read_audio(path: str | Path) -> np.ndarray:
    """Samples of a file, float32 in -1..1, mono (the mean of channels), `RATE` a second.

    Any format that libsndfile knows (WAV, FLAC, Ogg, MP3); `.raw`: 16-bit samples, mono, 16 kHz.
    Raises `InputError` for a file that is none of these, and for one without sound.
    """
    path = Path(path)
    soundfile = _library("soundfile")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    raw = {"format": "RAW", "subtype": "PCM_16", "samplerate": RATE, "channels": 1}
    try:
        options = raw if path.suffix == ".raw" else {}
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True, **options)
    except soundfile.SoundFileError as error:
        reason = first_line(error).split(": ")[-1].strip(" .")
        raise InputError(
            f"{path}: no audio that can be read ({reason}): give WAV, FLAC, Ogg, MP3, or .raw of "
            "16-bit samples at 16 kHz"
        ) from None
    if not len(samples):
        raise InputError(f"{path}: it holds 0 seconds of audio")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: its samples hold NaN or infinity")
    return to_rate(samples.mean(axis=1), rate)


@functools.cache
def _extractor(bins: int, seconds: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds)


def spectrogram(samples: np.ndarray, bins: int = 80, seconds: int = SECONDS) -> np.ndarray:
    """Log-mel spectrogram [bins, 100 * seconds] of a window, which silence fills up."""
    found = _extractor(bins, seconds)(samples, sampling_rate=RATE, return_tensors="np")
    return found.input_features[0]
