"""Audio files, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.speech.audio import RATE, read_audio, spectrogram


def _tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (22050, 1), (8000, 2)])
def test_any_rate_and_number_of_channels(tmp_path, rate, channels):
    soundfile = pytest.importorskip("soundfile", reason="pip install soundfile soxr")
    pytest.importorskip("soxr", reason="pip install soundfile soxr")
    tone = np.stack([_tone(rate)] * channels, axis=1)
    tone[:, 1:] = 0  # of two channels one is silent: half of the tone is left
    soundfile.write(tmp_path / "tone.wav", tone, rate)
    found = read_audio(tmp_path / "tone.wav")
    assert abs(len(found) - RATE // 2) <= 1
    middle = slice(1000, 7000)
    np.testing.assert_allclose(found[middle], _tone(RATE)[middle] / channels, atol=2e-3)


def test_headerless_samples(tmp_path):
    pytest.importorskip("soundfile", reason="pip install soundfile soxr")
    samples = np.array([0, 16384, -32768, 32767], "<i2")
    (tmp_path / "a.raw").write_bytes(samples.tobytes())
    np.testing.assert_array_equal(read_audio(tmp_path / "a.raw"), samples / np.float32(2**15))


def test_what_is_no_audio(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="pip install soundfile soxr")
    text, empty, nan = (tmp_path / name for name in ("notes.wav", "empty.wav", "nan.wav"))
    text.write_text("no audio at all")
    soundfile.write(empty, np.zeros(0), RATE)
    soundfile.write(nan, np.array([0, np.nan]), RATE, subtype="FLOAT")
    (tmp_path / "none.raw").write_bytes(b"")
    for path, message in (
        (text, "no audio that can be read"),
        (empty, "it holds 0 seconds of audio"),
        (tmp_path / "none.raw", "it holds 0 seconds of audio"),
        (nan, "NaN or infinity"),
        (tmp_path / "nothing.wav", "no such file"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises(InputError, match=message) as error:
            read_audio(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_spectrograms():
    samples = np.random.default_rng(1).standard_normal(2 * RATE).astype(np.float32)
    assert spectrogram(samples).shape == (80, 3000)
    assert spectrogram(samples, seconds=7).shape == (80, 700)
    np.testing.assert_array_equal(
        spectrogram(samples)[:, :150], spectrogram(samples, seconds=7)[:, :150]
    )
