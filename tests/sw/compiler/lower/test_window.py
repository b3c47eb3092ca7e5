"""Caches that do not fill: golden, the integer reference, and what a session may do."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from hw.config import PRESETS
from hw.isa import decode
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.decoder import SequenceState, attention_shift, new_state, run_pass
from sw.compiler.graph.operations import DecoderState, QuantCachedAttention, QuantGraph
from sw.compiler.graph.window import KeySlots, with_window
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Fixed
from sw.decoding.sampler import Sampler
from sw.driver import open_device
from sw.driver.session import SessionError
from tests.sw.compiler.decoder_shapes import random_shape
from tests.sw.compiler.lower.test_decoder import CONFIGS, Machine, assert_same, words

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
SHAPES = int(os.environ.get("WEFT_TEST_DECODERS", "60")) // 4


def random_window(seed: int, least: bool = False) -> tuple[QuantGraph, np.random.Generator]:
    """A random decoder whose window is some keys smaller than its context. least: keys of least
    attention go first, but for some last ones."""
    rng = np.random.default_rng(seed)
    shape = dataclasses.replace(random_shape(rng), context=int(rng.integers(40, 70)))
    graph = decoder(shape, seed)
    sink = max(len(graph.decoder.prefix), shape.lead, 1) + int(rng.integers(3))  # pyright: ignore
    keep = int(rng.integers(1 + least, 30))
    return with_window(graph, keep, sink, int(rng.integers(1, keep)) if least else 0), rng


def assert_same_attention(machine: Machine, state: SequenceState, text: str) -> None:
    """Attention of late to every slot, and the slot that is chosen."""
    at = state.position
    np.testing.assert_array_equal(machine.key_slots._before(at), state.key_slots._before(at), text)
    assert machine.key_slots.of(at) == state.key_slots.of(at), text


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize("part", range(3))
def test_to_the_end_of_the_context(part, least):
    """Every byte selected, in passes of any size up to the window and of one token behind it; and
    the keys that the sums of attention choose."""
    for seed in range(SEED + part, SEED + SHAPES, 3):
        name = list(CONFIGS)[seed % len(CONFIGS)]
        graph, rng = random_window(seed, least)
        assert graph.decoder is not None
        program = lower_decoder(graph, CONFIGS[name], (1, 3, 8))
        machine, state, slots = Machine(program), new_state(graph), graph.decoder.slots
        wraps = 0
        while state.position < graph.decoder.context:
            fits, entries = graph.decoder.fits, program.entries.values()
            size = int(
                rng.choice(
                    [
                        e.tokens
                        for e in entries
                        if fits(state.position, e.tokens, e.attention is not None)
                    ]
                )
            )
            ids = rng.integers(0, program.vocabulary, size)
            text = f"seed {seed}, {name}: {size} at {state.position}, {slots} slots"
            found = machine.run(state.position, ids)
            wanted, _ = run_pass(graph, state, ids)
            assert_same(found, wanted, text)
            assert_same_attention(machine, state, text)
            wraps += state.position > slots
        assert wraps > 3


@pytest.mark.parametrize(
    ("config", "heads", "dim"),
    [("narrow", 2, 80), ("16x16", 10, 6), ("8x16", 14, 6), ("16x8", 2, 8)],
)
def test_sums_of_rows_that_are_not_taken_together(config, heads, dim, monkeypatch):
    """Some tokens at a time; heads that share keys one by one; more than 16 bits hold."""
    narrow = dataclasses.replace(PRESETS["tiny"], name="narrow", accumulator_words=208)
    shape = DecoderShape(hidden=8, heads=heads, kv_heads=2, dim=dim, ffn=8, layers=1,
                         vocabulary=90, context=50, key_block=16)  # fmt: skip
    graph = with_window(decoder(shape), 18, 2, 7)
    assert attention_shift(graph) == 0
    if config == "16x8":  # as with 1,000 times as many heads
        monkeypatch.setattr("sw.compiler.graph.decoder.LARGEST_WEIGHT", 255_000)
        assert attention_shift(graph) == 4
    program = lower_decoder(graph, (CONFIGS | {"narrow": narrow})[config], (1, 8))
    assert program.entries[8].attention is not None
    gemms = [decode(word.tobytes()).values for word in words(program, 8)]
    ours = [v for v in gemms if v.get("a_unsigned") and not v["rescale"] and v["accumulate"]]
    assert ours and all((v["period"] < 8) == (config == "narrow") for v in ours)
    machine, state, rng = Machine(program), new_state(graph), np.random.default_rng(SEED)
    while state.position < 40:
        ids = rng.integers(0, 90, 8 if state.position <= 12 else 1)
        text = f"seed {SEED}, at {state.position}"
        assert_same(machine.run(state.position, ids), run_pass(graph, state, ids)[0], text)
        assert_same_attention(machine, state, text)


def test_keys_that_are_kept():
    """Of attention as a list of positions: the first ones and the last ones."""
    state = random_window(SEED + 5)[0].decoder
    assert state is not None
    slots, sink = state.slots, state.sink
    for position in range(state.context):
        before = np.arange(position + 1)
        kept = dict(zip(state.slots_of(before).tolist(), before.tolist(), strict=True))
        keep = slots - sink
        wanted = [p for p in before if p < sink or p > position - keep]
        assert sorted(kept.values()) == wanted and max(kept) < slots


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_the_key_of_least_attention_of_late_goes(seed):
    """Against sums of floats that fade, of the positions that are there."""
    rng = np.random.default_rng(seed)
    sink, recent, keep = int(rng.integers(1, 5)), 8, int(rng.integers(9, 60))
    slots = sink + keep
    key_slots = KeySlots(DecoderState(400, window=slots, sink=sink, recent=recent))
    where: dict[int, int] = {}
    sums: dict[int, float] = {}
    position = moved = 0
    while position < 400:
        tokens = int(rng.integers(1, 5)) if position < slots - 4 else 1
        weights = np.zeros((tokens, slots), np.int64)
        for at, row in enumerate(weights, position):
            slot = key_slots.of(at)
            if at >= slots:
                (gone,) = (p for p in where if where[p] == slot)
                free = [p for p in where if sink <= p < at - recent]
                assert gone in free, f"seed {seed}, at {at}"
                assert sums[gone] <= min(sums[p] for p in free) + 0.2, f"seed {seed}, at {at}"
                moved += gone != min(free)
                del where[gone], sums[gone]
            where[at], sums[at] = slot, 0.0
            for p, place in where.items():
                row[place] = rng.integers(0, 9) ** 3
                counts = at >= key_slots.decoder.counted_from
                sums[p] = 251 / 256 * sums[p] + counts * float(row[place])
        key_slots.take(position, weights)
        position += tokens
    assert len(where) == slots and moved > 100 and set(range(sink)) <= set(where)


@pytest.mark.parametrize(("reached", "to"), [(150, 100), (160, 31), (160, 160), (190, 1)])
def test_positions_that_are_taken_again(reached, to):
    """As if the tokens that were taken back had never been there."""
    rng = np.random.default_rng(SEED)
    state = DecoderState(400, window=160, sink=2, recent=5)
    rows = rng.integers(0, 1000, (220, 160))
    straight, back = KeySlots(state), KeySlots(state)
    for at in range(reached):
        other = rng.integers(0, 1000, (1, 160))
        back.take(at, rows[at : at + 1] if at < to else other)
    for at in range(220):
        straight.take(at, rows[at : at + 1])
        if at >= to:
            back.take(at, rows[at : at + 1])
        if at >= 159:
            assert straight.of(at + 1) == back.copy().of(at + 1), f"at {at}"


def test_values_of_the_window_decide():
    """What was replaced has no influence any more; what is in the sink or the window has."""
    graph, rng = random_window(SEED + 7)
    assert graph.decoder is not None
    slots, first = graph.decoder.slots, len(graph.decoder.prefix)
    name = next(op.cache for op in graph.ops if isinstance(op, QuantCachedAttention))
    ids = rng.integers(0, 90, slots + 3 - first)

    def after(spoil: int | None) -> np.ndarray:
        state = new_state(graph)
        for token in ids[:-1]:
            run_pass(graph, state, [token])
        if spoil is not None:
            state.values[name][spoil] = 127
        return run_pass(graph, state, ids[-1:])[1]

    plain = after(None)
    replaced = int(graph.decoder.slots_of(np.array(slots + 2)))
    assert (after(replaced) == plain).all()
    assert (after(0) != plain).any()
    assert (after(replaced + 1 if replaced + 1 < slots else graph.decoder.sink) != plain).any()


@pytest.mark.parametrize("least", [False, True])
def test_sessions(least):
    """Prompts longer than the window, rewinding, forks; greedy decoding without the host's help."""
    graph, rng = random_window(SEED + 11, least)
    assert graph.decoder is not None
    slots, sink, first = graph.decoder.slots, graph.decoder.sink, len(graph.decoder.prefix)
    program = lower_decoder(graph, "tiny", (1, 4, 8))
    ids = rng.integers(0, program.vocabulary, program.context - first - 6).tolist()
    with open_device("golden", "tiny") as device:
        model = device.load_decoder(program)
        session, other = model.session(), model.session()
        found = session.prefill(ids)
        for token in ids[:-1]:
            other.step(token)
        assert (found.tokens == other.step(ids[-1]).tokens[-1:]).all()
        with pytest.raises(SessionError, match=rf"room for {slots} keys cannot go back to {slots}"):
            session.rewind(slots)
        fork, state = session.fork(), new_state(graph)
        for token in ids:
            run_pass(graph, state, [token])
        token = found.best
        for _ in range(5):  # each is the likeliest one of the pass before
            wanted, _ = run_pass(graph, state, [token])
            got, copy = session.step(token), fork.step(token)
            assert (got.tokens == copy.tokens).all()
            assert got.best == program.order[wanted.indices[-1, 0]]
            token = got.best
        session.rewind(min(sink, first))
        assert (session.prefill(ids).tokens == found.tokens).all()


@pytest.mark.parametrize(
    ("keep", "sink", "text"),
    [
        (8, 0, "a sink of 0 keys: the first 1 are needed"),
        (0, 1, "a window of 0 keys"),
        (500, 4, "a window of 500 keys behind the first 4: the context has"),
        (8, 4, "a window of 8 keys: the last 8 always stay where that of least .* so 9 are needed"),
    ],
)
def test_refused(keep, sink, text):
    shape = dataclasses.replace(random_shape(np.random.default_rng(1)), prefix=1, lead=1)
    graph = decoder(shape)
    with pytest.raises(CompileError, match=text):
        with_window(graph, keep, sink, recent=8 * ("least" in text))
    graph = with_window(graph, 5, 1)
    state = new_state(graph)
    with pytest.raises(InputError, match="a pass of 8 tokens does not end inside the window"):
        run_pass(graph, state, [3] * 8)


def test_sums_that_cannot_be_kept_are_refused():
    graph = decoder(DecoderShape(hidden=8, heads=2, kv_heads=1, ffn=8, layers=2, vocabulary=90,
                                 context=900))  # fmt: skip
    with pytest.raises(CompileError, match="sums of the attention to 704 keys take more than half"):
        lower_decoder(with_window(graph, 700, 4, 32), "tiny", (1,))
    graph = with_window(graph, 200, 4, 32)
    program = lower_decoder(graph, "tiny", (1, 4, 8))
    assert [entry.attention is None for entry in program.entries.values()] == [False, True, True]
    other = next(n for n, op in enumerate(graph.ops) if isinstance(op, QuantCachedAttention))
    graph.ops[other] = dataclasses.replace(graph.ops[other], key_block=32)  # pyright: ignore
    with pytest.raises(CompileError, match=r"layer\.0\.attention and layer\.1\.attention: "):
        lower_decoder(graph, "tiny", (1,))


def test_a_program_file_carries_the_rule(tmp_path):
    graph, _ = random_window(SEED + 3, least=True)
    program = lower_decoder(graph, "tiny", (1, 4))
    program.save(tmp_path / "least.weft")
    again = DecoderProgram.load(tmp_path / "least.weft")
    assert again.to_bytes() == program.to_bytes() and again.state.recent == graph.decoder.recent  # pyright: ignore
    assert again.sums is not None and program.sums is not None
    assert (again.sums.columns == program.sums.columns).all()
    assert again.entries[1].attention == program.entries[1].attention is not None


def test_programs_without_a_window_are_as_they_were():
    """They use one register for all, and a pass ends with one addition."""
    shape = random_shape(np.random.default_rng(2))
    graph = decoder(shape)
    plain = lower_decoder(graph, PRESETS["tiny"], (1,))
    assert set(plain.registers(2, np.array([1]), False, 2)) <= {1, 2, 3}
    moved = lower_decoder(with_window(graph, 6, 3), PRESETS["tiny"], (1,))
    assert {4, 5} < set(moved.registers(2, np.array([1]), False, 2))


@pytest.mark.parametrize("least", [False, True])
def test_drafts_up_to_the_window_and_behind_it(least):
    """The text is that without drafts; behind the window nothing is drafted."""
    graph, rng = random_window(SEED + 13, least)
    assert graph.decoder is not None
    program = lower_decoder(graph, "tiny", (1, 4, 8))
    slots = graph.decoder.slots
    prompt = [*program.prefix, *rng.integers(0, program.vocabulary, 4).tolist()]
    count = program.context - len(prompt)
    with open_device("golden", "tiny") as device:
        model, texts = device.load_decoder(program), []
        for source in (None, Lookup()):
            decoding = Decoding(Sampler(), source=source, policy=Fixed(3))
            texts.append(list(decoding.answer(model.session(), prompt, count)))
            drafted = [step for step in decoding.steps if step.drafted]
            assert bool(drafted) == (source is not None)
            assert all(step.position + step.rows <= slots for step in drafted)
        assert texts[0] == texts[1] and len(texts[0]) > slots - len(prompt) + 3
