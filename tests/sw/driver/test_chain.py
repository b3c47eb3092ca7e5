"""Several plain tokens at one start: the same tokens and caches as one by one, and no pass behind
an end token."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import CompileError, InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.chain import make_chain
from sw.driver import Device, open_device
from sw.driver.decoder import LoadedDecoder
from sw.driver.session import Session
from tests.sw.compiler.decoder_shapes import random_shape

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=40, key_block=16
)
PROGRAM = lower_decoder(decoder(SHAPE), "tiny", (1, 4))
PROMPT = [3, 50, 7]
PASSES = 5


@pytest.fixture(params=["golden", "verilator"])
def device(request) -> Iterator[Device]:
    options = {"optimise": False} if request.param == "verilator" else {}
    with open_device(request.param, "tiny", **options) as device:
        yield device


def one_by_one(session: Session, token: int, count: int) -> tuple[list[int], np.ndarray]:
    """The likeliest tokens behind `token`, and logarithms of their probabilities and others'."""
    found, rows = [token], []
    for _ in range(count):
        prediction = session.step(found[-1])
        rows.append(prediction.log_probabilities[0])
        found.append(prediction.best)
    return found[1:], np.array(rows)


def caches(session: Session) -> np.ndarray:
    return session.model.read_back(session)[: session.model.program.cache_bytes]


def check_chain(model: LoadedDecoder, prompt: list[int], text: str) -> None:
    """To the end of the context, against steps."""
    alone, chained = model.session(), model.session()
    prediction = alone.prefill(prompt)
    assert chained.prefill(prompt).best == prediction.best
    token = prediction.best
    while chained.room:
        followed = chained.follow(token)
        tokens, rows = one_by_one(alone, token, len(followed.tokens))
        assert followed.tokens[:, 0].tolist() == tokens, f"{text} at {chained.position}"
        np.testing.assert_array_equal(followed.log_probabilities, rows, text)
        assert alone.position == chained.position
        np.testing.assert_array_equal(caches(alone), caches(chained), text)
        token = followed.best


def test_chains_are_steps(device: Device) -> None:
    model = device.load_decoder(PROGRAM, make_chain(PROGRAM, PASSES, ()))
    check_chain(model, PROMPT, "chain")
    padded = 2 * (len(PROMPT) - 1)  # each session reads the prompt in one pass
    assert model.counters["tokens"] - model.counters["passes"] == padded


def test_chains_of_random_decoders() -> None:
    for seed in range(SEED, SEED + 6):
        shape = random_shape(np.random.default_rng(seed))
        program = lower_decoder(decoder(shape, seed), "tiny", (1, 8))
        if not program.entries[1].by_token:
            with pytest.raises(CompileError, match="find embedding rows by number"):
                make_chain(program, 3, ())
            continue
        with open_device("golden", "tiny") as device:
            check_chain(device.load_decoder(program, make_chain(program, 3, ())), [5], f"{seed}")


def test_end_tokens_end_a_chain(device: Device) -> None:
    """Behind each of the passes, whichever of several ends it is; then the chain goes on."""
    with open_device("golden", "tiny") as golden:
        session = golden.load_decoder(PROGRAM).session()
        tokens, _ = one_by_one(session, session.prefill(PROMPT).best, 12)
    others = [token for token in range(4, 90) if token not in tokens][:2]
    for place in range(PASSES):
        end = tokens[place]
        first = tokens.index(end)
        model = device.load_decoder(
            PROGRAM, make_chain(PROGRAM, PASSES, {others[0], end, others[1]})
        )
        session = model.session()
        begin = session.prefill(PROMPT).best
        found = session.follow(begin).tokens[:, 0].tolist()
        assert found == tokens[: first + 1], f"ends with {end}"
        assert session.position == 1 + len(PROMPT) + first + 1 == model.counters["tokens"] + 1
        before = session.position
        more = session.follow(found[-1]).tokens[:, 0].tolist()
        assert more == tokens[first + 1 : first + 1 + len(more)] and more
        assert len(more) == PASSES or more[-1] == end
        assert session.position == before + len(more)


def test_a_chain_behind_a_chain_is_only_started(device: Device, monkeypatch) -> None:
    model = device.load_decoder(PROGRAM, make_chain(PROGRAM, PASSES, {2}))
    session, alone = model.session(), model.session()
    begin = alone.prefill(PROMPT).best
    tokens, _ = one_by_one(alone, begin, 3 * PASSES)
    session.prefill(PROMPT)
    found = session.follow(begin).tokens[:, 0].tolist()
    with monkeypatch.context() as patched:
        for name in ("set_register", "set_window", "write"):
            patched.setattr(type(device), name, lambda *_args, name=name: pytest.fail(name))
        for _ in range(2):
            found += session.follow(found[-1]).tokens[:, 0].tolist()
    assert found == tokens


def test_without_room_or_chain_there_is_one_token(device: Device) -> None:
    plain = device.load_decoder(PROGRAM).session()
    assert len(plain.follow(3).tokens) == 1
    session = device.load_decoder(PROGRAM, make_chain(PROGRAM, PASSES, ())).session()
    session.prefill(list(range(3, 3 + 34)))
    assert session.room == 5
    assert len(session.follow(7).tokens) == 5 and not session.room
    session.rewind(36)
    assert len(session.follow(7).tokens) == 1


def test_what_chains_refuse() -> None:
    with pytest.raises(InputError, match="a chain of 0 passes"):
        make_chain(PROGRAM, 0, ())
    with pytest.raises(InputError, match=r"token 90 is outside 0\.\.89"):
        make_chain(PROGRAM, 2, {90})
