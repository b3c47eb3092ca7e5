"""A language model from an unmodified module to text: compiled, in sessions, under `generate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

from sw.compiler import compile_decoder
from sw.compiler.errors import CompileError, InputError
from sw.decoding.sampler import Sampler
from sw.driver import open_device
from sw.driver.session import Prediction
from sw.models.causal_lm import SessionForCausalLM

VOCABULARY = 120
CONFIG = LlamaConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=VOCABULARY,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    initializer_range=0.2,
    bos_token_id=1,
    eos_token_id=None,
    pad_token_id=0,
)


@pytest.fixture(scope="module")
def module() -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(CONFIG).eval()


def texts(count: int, length: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [[1, *(int(n) for n in rng.integers(2, VOCABULARY, length))] for _ in range(count)]


@pytest.fixture(scope="module")
def program(module: LlamaForCausalLM):
    return compile_decoder(
        module, "tiny", context=40, calibration=texts(12, 30), prefix=[1], passes=(1, 4, 8)
    )


def test_predictions_are_close_to_float(module, program) -> None:
    ids = texts(1, 30)[0]
    with torch.no_grad():
        exact = torch.log_softmax(module(torch.tensor([ids])).logits[0].double(), -1).numpy()
    with open_device("golden", "tiny") as device:
        session = device.load_decoder(program).session()
        found = [session.step(token) for token in ids[1:]]
    errors = [
        np.abs(p.log_probabilities[0] - exact[n + 1, p.tokens[0]]).max()
        for n, p in enumerate(found)
    ]
    assert np.mean(errors) < 0.15
    same = np.mean([p.best == exact[n + 1].argmax() for n, p in enumerate(found)])
    assert same >= 0.8


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value) -> None:
        self.tokens += [int(token) for token in value.flatten()]

    def end(self) -> None:
        self.ended = True


def test_generate_of_transformers(module, program) -> None:
    """Greedy search with a streamer gives the tokens of the session's own steps."""
    prompt = texts(1, 5)[0]
    with open_device("golden", "tiny") as device:
        model = device.load_decoder(program)
        session, streamer = model.session(), Collector()
        wrapped = SessionForCausalLM(CONFIG, model.session())
        found = wrapped.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, streamer=streamer
        )[0].tolist()
        prediction = session.prefill(prompt[1:])
        for token in found[len(prompt) :]:
            assert token == prediction.best
            prediction = session.step(token)
        assert streamer.tokens == found and streamer.ended
        passes = model.counters["passes"]
        again = wrapped.generate(torch.tensor([found]), max_new_tokens=1, do_sample=False)
        assert again[0, -1] == prediction.best
        assert model.counters["passes"] == passes + 1  # the rest was computed already
        torch.manual_seed(0)
        sampled = wrapped.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=True)
        assert sampled.shape == (1, len(prompt) + 4)
        with pytest.raises(InputError, match="one sequence at a time, got 2"):
            wrapped(torch.tensor([prompt, prompt]))
        with pytest.raises(InputError, match=r"begin with the tokens \[1\]"):
            wrapped(torch.tensor([[5, 6]]))


def test_sampler() -> None:
    prediction = Prediction(
        np.array([[7, 3, 9, -1, -1, -1, -1, -1]]),
        np.log(np.array([[0.6, 0.3, 0.1, 1, 1, 1, 1, 1]])),
    )
    assert Sampler().choose(prediction) == 7
    sampler = Sampler(temperature=1.0, seed=1)
    counts = np.bincount([sampler.choose(prediction) for _ in range(3000)], minlength=10)
    np.testing.assert_allclose(counts[[7, 3, 9]] / 3000, [0.6, 0.3, 0.1], atol=0.03)
    two = Sampler(temperature=1.0, top_k=2, seed=1)
    assert {two.choose(prediction) for _ in range(50)} == {7, 3}
    for options, text in (
        ({"top_k": 9}, "selects 1 to 8"),
        ({"temperature": -1.0}, "no number from 0 on"),
        ({"temperature": float("nan")}, "no number from 0 on"),
    ):
        with pytest.raises(InputError, match=text):
            Sampler(**options)


def test_what_is_missing_is_named(module) -> None:
    with pytest.raises(CompileError, match="calibration is empty"):
        compile_decoder(module, "tiny", context=40, calibration=[])
    with pytest.raises(CompileError, match="'ulx3s' needs decoder=True"):
        compile_decoder(module, "ulx3s", context=40, calibration=texts(1, 5))
    with pytest.raises(CompileError, match="does not begin with the prefix"):
        compile_decoder(module, "tiny", context=40, calibration=[[4, 5, 6]], prefix=[1])
