"""Sessions of a language model: what they hold is theirs, whatever else the device does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from hw.config import PRESETS
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.driver import ConfigMismatchError, Device, DeviceClosedError, MachineError, open_device
from sw.driver.decoder import LoadedDecoder
from sw.driver.session import Prediction, SessionError
from tests.sw.driver.programs import copy_program

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=40, key_block=16
)
PROGRAM = lower_decoder(decoder(SHAPE), "tiny", (1, 2, 4, 8))
IDS = [int(n) for n in np.random.default_rng(1).integers(0, SHAPE.vocabulary, 39)]


@pytest.fixture(params=["golden", "verilator"])
def device(request) -> Iterator[Device]:
    options = {"optimise": False} if request.param == "verilator" else {}
    with open_device(request.param, "tiny", **options) as device:
        yield device


@pytest.fixture
def model(device: Device) -> LoadedDecoder:
    return device.load_decoder(PROGRAM)


def same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.log_probabilities, b.log_probabilities)


def test_prefill_step_and_verify_agree(model: LoadedDecoder) -> None:
    whole, steps, drafts = model.session(), model.session(), model.session()
    expected = whole.prefill(IDS[:11])
    for token in IDS[:11]:
        last = steps.step(token)
    same(last, expected)
    drafts.prefill(IDS[:4])
    verified = drafts.verify(IDS[4:11])
    assert verified.tokens.shape == (7, 8)
    same(Prediction(verified.tokens[-1:], verified.log_probabilities[-1:]), expected)
    assert whole.position == steps.position == drafts.position == 12
    assert model.counters["tokens"] == 33


def test_verification_is_one_pass(model: LoadedDecoder) -> None:
    """Of the smallest size that holds the tokens; what its other rows write is never seen."""
    session, alone = model.session(), model.session()
    session.prefill(IDS[:3])
    for token in IDS[:3]:
        alone.step(token)
    before = model.counters["passes"]
    for begin, count in ((3, 7), (10, 3), (13, 5), (18, 1)):
        found = session.verify(IDS[begin : begin + count])
        expected = [alone.step(token) for token in IDS[begin : begin + count]]
        for row, one in enumerate(expected):
            np.testing.assert_array_equal(found.log_probabilities[row], one.log_probabilities[0])
    assert model.counters["passes"] - before == 4 + 16
    same(session.prefill(IDS[19:31]), alone.prefill(IDS[19:31]))
    caches = [model.read_back(s)[: PROGRAM.cache_bytes] for s in (session, alone)]
    np.testing.assert_array_equal(*caches)
    assert session.verifying(5).tokens == 8 and session.room == 8
    before = model.counters["passes"]
    session.step(IDS[31])
    assert session.verifying(5) is None and session.verifying(3).tokens == 4
    found, expected = session.verify(IDS[32:39]), alone.verify(IDS[31:39])  # 4 + 2 + 1 rows
    assert model.counters["passes"] - before == 1 + 3 + 1 and not session.room
    np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities[1:])


def test_programs_side_by_side(device: Device) -> None:
    """Two programs in one memory: each loaded once, whoever takes turns, however many sessions."""
    other = lower_decoder(decoder(SHAPE, 5), "tiny", (1, 4))
    alone = [device.load_decoder(p).session().prefill(IDS[:9]) for p in (PROGRAM, other)]
    models = device.load_decoders(PROGRAM, other)
    sessions = [model.session() for model in models]
    for session in sessions:
        session.prefill(IDS[:2])
    loaded = device.loaded
    for n in range(2, 8):
        for session in sessions:
            session.step(IDS[n])
    assert device.loaded is loaded
    forks = [session.fork() for session in sessions]
    for session, fork, expected in zip(sessions, forks, alone, strict=True):
        same(session.step(IDS[8]), expected)
        same(fork.step(IDS[8]), expected)


def test_the_likeliest_token_needs_nothing_of_the_host(
    device: Device, model: LoadedDecoder, monkeypatch
) -> None:
    """Its row, the next position and its caches are found by registers that the machine wrote."""
    greedy, others = model.session(), [model.session(), model.session()]
    for session in others:  # who take turns, so that each pass is prepared by the host
        session.prefill(IDS[:3])
    prediction = greedy.step(IDS[0])
    for token in IDS[1:3]:
        prediction = greedy.step(token)
    chain = []
    with monkeypatch.context() as patched:
        for name in ("set_register", "set_window", "write"):
            patched.setattr(type(device), name, lambda *_args, name=name: pytest.fail(name))
        for _ in range(6):
            chain.append(prediction.best)
            prediction = greedy.step(chain[-1])
    for token in chain:
        expected, again = (session.step(token) for session in others)
        same(expected, again)
    same(prediction, expected)
    same(greedy.step(7), others[0].step(7))


def test_drafts_are_written_as_numbers(device: Device, model: LoadedDecoder, monkeypatch) -> None:
    """Passes of up to 8 tokens find all their embedding rows by registers."""
    session, alone = model.session(), model.session()
    session.prefill(IDS[:3])
    for token in IDS[:3]:
        alone.step(token)
    with monkeypatch.context() as patched:
        patched.setattr(type(device), "write", lambda *_args: pytest.fail("write"))
        found = [session.verify(IDS[3:10]), session.verify(IDS[9:5:-1])]
    rows = np.concatenate([part.log_probabilities for part in found])
    for row, token in zip(rows, [*IDS[3:10], *IDS[9:5:-1]], strict=True):
        np.testing.assert_array_equal(row, alone.step(token).log_probabilities[0])


def test_log_probabilities_are_those_of_a_distribution(model: LoadedDecoder) -> None:
    chances = np.exp(model.session().prefill(IDS[:5]).log_probabilities[0])
    assert (np.diff(chances) <= 0).all() and 0 < chances.sum() <= 1.01


def test_rewind_and_reset(model: LoadedDecoder) -> None:
    session, other = model.session(), model.session()
    session.prefill(IDS[:9])
    session.rewind(4)
    same(session.prefill(IDS[20:25]), other.prefill([*IDS[:3], *IDS[20:25]]))
    session.reset()
    other.reset()
    same(session.prefill(IDS[:2]), other.prefill(IDS[:2]))
    for position in (0, 4):
        with pytest.raises(SessionError, match=r"1 of them its prefix, cannot go back"):
            session.rewind(position)


def test_forks_go_their_own_ways(model: LoadedDecoder) -> None:
    session, alone = model.session(), model.session()
    session.prefill(IDS[:6])
    fork = session.fork()
    session.prefill(IDS[10:15])
    same(fork.prefill(IDS[6:8]), alone.prefill(IDS[:8]))
    assert (session.position, fork.position) == (12, 9)


def test_other_programs_clear_no_cache(device: Device, model: LoadedDecoder) -> None:
    """Caches live on, though the device's memory was used for something else meanwhile."""
    alone, session = model.session(), model.session()
    expected = alone.prefill(IDS[:8])
    session.prefill(IDS[:5])
    other = device.load_decoder(lower_decoder(decoder(SHAPE, 5), "tiny", (1,))).session()
    other.step(3)
    device.load_commands(copy_program(PRESETS["tiny"]), io_bytes=4096)
    same(session.prefill(IDS[5:8]), expected)
    other.step(4)
    same(alone.step(7), session.step(7))


def test_an_error_leaves_the_session_where_it_was(device: Device, model: LoadedDecoder) -> None:
    """A register that takes a transfer out of its window stops the machine, with a code."""
    session, alone = model.session(), model.session()
    session.prefill(IDS[:3])
    position = session.position
    session.position = 1 << 19
    with pytest.raises(MachineError, match="DMA_WINDOW"):
        model.run(session, np.array([5]))
    session.position = position
    same(session.prefill(IDS[3:5]), alone.prefill(IDS[:5]))


def test_bad_tokens_are_refused_before_anything_runs(model: LoadedDecoder) -> None:
    session = model.session()
    for ids, text in (
        ([90], "token 90 is outside 0..89"),
        ([3] * 40, "40 tokens behind 1 are more than the context of 40"),
        ([], "a list of token numbers"),
    ):
        with pytest.raises(InputError, match=text):
            session.prefill(ids)
    with pytest.raises(SessionError, match="at most 8 tokens, got 9"):
        session.verify([1] * 9)
    assert session.position == 1 and not model.counters["passes"]
    session.prefill(IDS)
    assert not session.room
    with pytest.raises(InputError, match="more than the context"):
        session.step(1)


def test_closed(device: Device, model: LoadedDecoder) -> None:
    session, other = model.session(), model.session()
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.step(1)
    other.step(1)
    device.close()
    with pytest.raises(DeviceClosedError, match="is closed: open it again"):
        other.step(2)


def test_a_program_of_another_machine() -> None:
    other = dataclasses.replace(PRESETS["tiny"], row_slots=32)
    with open_device("golden", other) as device:
        with pytest.raises(ConfigMismatchError, match="row_slots 64 against 32"):
            device.load_decoder(PROGRAM)


def test_interrupted(device: Device, model: LoadedDecoder, monkeypatch) -> None:
    """Ctrl-C in the middle of a pass: the machine is reset, the cache is as it was."""
    session, alone = model.session(), model.session()
    session.prefill(IDS[:5])

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(device), "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.step(7)
    assert session.position == 6
    same(session.step(8), alone.prefill([*IDS[:5], 8]))
