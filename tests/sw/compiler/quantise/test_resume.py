"""A quantisation that is interrupted goes on where it was, to the same bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sim.cache import find
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.graph.graph_file import graph_bytes
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.quantise.decoder import DecoderOptions, Unfinished, quantise_decoder, resume
from sw.compiler.quantise.decoder.plan import plan_decoder

CONTEXT, VOCABULARY, START = 24, 40, 1
NAME = "unfinished.safetensors"


class Interrupted(BaseException):
    """As Ctrl-C."""


@functools.cache
def llama() -> FloatGraph:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return capture_decoder(LlamaForCausalLM(config).eval(), context=CONTEXT)


def sequences(seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[START, *rng.integers(2, VOCABULARY, n).tolist()] for n in (23, 9, 17)]


def run(
    stages: int | None = None,
    unfinished: Unfinished | None = None,
    calibration: list[list[int]] | None = None,
    **options: float,
) -> tuple[bytes, list[str]]:
    """The graph's file and the stages that it took; interrupted in the stage behind `stages`."""
    seen: list[str] = []

    def progress(text: str, _part: float) -> None:
        if len(seen) == stages:
            raise Interrupted(seen)
        seen.append(text)

    graph = quantise_decoder(
        llama(),
        calibration or sequences(),
        context=CONTEXT,
        prefix=(START,),
        options=DecoderOptions(**options),  # pyright: ignore[reportArgumentType]
        progress=progress,
        unfinished=unfinished,
    )
    return graph_bytes(graph), seen


@functools.cache
def whole() -> tuple[bytes, list[str]]:
    return run()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Iterator[Path]:
    """An own one, written behind every stage."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(resume, "SECONDS", 0.0)
    yield tmp_path


def kept() -> Unfinished:
    return Unfinished("models", NAME)


def test_interrupted_in_every_stage():
    wanted, stages = whole()
    assert len(stages) - 1 == len(plan_decoder(llama(), CONTEXT)) == 15
    for number in range(len(stages) - 1):
        with pytest.raises(Interrupted) as caught:
            run(1, kept())
        assert caught.value.args[0] == stages[number : number + 1]
    assert run(None, kept()) == (wanted, stages[-1:])
    kept().remove()
    assert find("models", NAME) is None


def test_interrupted_within_a_stage(monkeypatch):
    """Its results so far are dropped."""
    emit, count = resume.State.emit, 0

    def interrupted(state: resume.State, op: object) -> None:
        nonlocal count
        emit(state, op)  # pyright: ignore[reportArgumentType]
        count += 1
        if count == 4:  # k and v of the first layer are there, q is not
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(resume.State, "emit", interrupted)
        with pytest.raises(Interrupted):
            run(None, kept())
    wanted, stages = whole()
    assert run(None, kept()) == (wanted, stages[2:])


def test_of_the_same_inputs_only():
    with pytest.raises(Interrupted):
        run(5, kept())
    assert run(None, kept(), sequences(1)) == run(None, None, sequences(1))
    with pytest.raises(Interrupted):
        run(5, kept())
    assert run(None, kept(), margin=2.0) == run(None, None, margin=2.0)


def test_damage_is_noticed(capsys):
    with pytest.raises(Interrupted):
        run(5, kept())
    path = find("models", NAME)
    assert path is not None
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    assert run(None, kept()) == whole()
    assert "is damaged: it is made again" in capsys.readouterr().err


def test_seldom_enough(monkeypatch):
    now = 0.0
    monkeypatch.setattr(resume, "SECONDS", 30.0)
    monkeypatch.setattr(resume.time, "monotonic", lambda: now)
    unfinished = kept()
    with pytest.raises(Interrupted):
        run(5, unfinished)
    assert find("models", NAME) is None
    now = 31.0
    with pytest.raises(Interrupted):
        run(5, unfinished)
    wanted, stages = whole()
    assert run(None, kept()) == (wanted, stages[1:])
