"""Attention that leaves out key blocks: golden against the integer reference, in any order that
waits allow, and what is refused."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
import pytest

from hw.config import AcceleratorConfig, get_config
from hw.isa import Opcode
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import new_state, run_pass
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.pruning import with_pruning
from sw.compiler.graph.window import with_window
from sw.compiler.lower.decoder import lower_decoder
from tests.sw.compiler.lower.test_decoder import Machine, assert_same
from tests.sw.compiler.shuffle import Shuffler, commands_of

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
CONFIGS = {
    "4x4": get_config("tiny+prune"),
    "8x16": dataclasses.replace(get_config("ulx3s"), name="8x16", decoder=True, prune=True),
    "16x16": get_config("base+prune"),
}


def random_graph(seed: int, config: AcceleratorConfig) -> tuple[DecoderShape, QuantGraph]:
    """A decoder whose blocks are short, so that there are many, and of which some stay."""
    rng = np.random.default_rng(seed)
    block = max(config.rows, config.columns)
    kv_heads = int(rng.choice([1, 2, 3, 4]))
    shape = DecoderShape(
        hidden=24,
        heads=kv_heads * int(rng.choice([1, 2, 3])),
        kv_heads=kv_heads,
        dim=2 * int(rng.integers(2, 13)),
        ffn=40,
        layers=int(rng.choice([1, 2])),
        vocabulary=70,
        context=int(rng.integers(20, 24 + 4 * block)),
        key_block=block * int(rng.choice([1, 2])),
        lead=int(rng.choice([0, 1])),
    )
    octaves = int(rng.choice([1, 1, 1, 2, 3, 31]))
    return shape, with_pruning(decoder(shape, seed), octaves, config.rows)


def passes(shape: DecoderShape, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Tokens of passes of one token mostly, some of four, to the end of the context."""
    position = shape.prefix
    while position < shape.context:
        several = rng.random() < 0.15 and position + 4 <= shape.context
        yield rng.integers(0, shape.vocabulary, 4 if several else 1)
        position += 4 if several else 1


@pytest.mark.parametrize("name", CONFIGS)
def test_golden_is_the_reference(name: str) -> None:
    dropped = blocks = 0
    for seed in range(SEED, SEED + 4):
        config, rng = CONFIGS[name], np.random.default_rng(seed)
        shape, graph = random_graph(seed, config)
        program = lower_decoder(graph, config, (1, 4))
        machine, state = Machine(program), new_state(graph)
        for ids in passes(shape, rng):
            text = f"seed {seed}, {len(ids)} tokens at {state.position}, {shape}"
            found = machine.run(state.position, ids)
            assert_same(found, run_pass(graph, state, ids)[0], text)
        dropped, blocks = dropped + state.dropped, blocks + state.blocks
    assert blocks / 50 < dropped < blocks * 0.9, f"{dropped} of {blocks} blocks were dropped"


def test_tokens_alike_are_those_of_passes_of_one() -> None:
    """What accuracy is measured with: many tokens at once, each with blocks of its own."""
    shape, graph = random_graph(SEED + 1, CONFIGS["4x4"])
    ids = np.random.default_rng(SEED).integers(0, shape.vocabulary, shape.context - shape.prefix)
    together, alone = new_state(graph), new_state(graph)
    _, logits = run_pass(graph, together, ids, alike=True)
    one_by_one = np.concatenate([run_pass(graph, alone, [token])[1] for token in ids])
    np.testing.assert_array_equal(logits, one_by_one)
    assert (together.dropped, together.blocks) == (alone.dropped, alone.blocks)


def orders(*, without: Opcode | None = None, seeds: int = 4) -> Iterator[bool]:
    """Whether a pass executed in random orders gives what it gives in that of the stream; without:
    the waits of these commands are left out."""
    config = CONFIGS["4x4"]
    shape, graph = random_graph(SEED + 3, config)
    graph = with_pruning(decoder(shape, 5), 2, config.rows)
    program = lower_decoder(graph, config, (1,))
    straight, shuffled = Machine(program), Machine(program)
    entry, state = program.entries[1], new_state(graph)
    stream = [
        dataclasses.replace(command, waits=(None,) * 3) if command.opcode == without else command
        for command in commands_of(entry)  # pyright: ignore
    ]
    for position in range(shape.prefix, shape.context):
        ids = np.array([position % shape.vocabulary])
        straight.run(position, ids)
        run_pass(graph, state, ids)
        before = shuffled.workspace.copy()
        for seed in range(seeds if position + 1 == shape.context else 1):
            shuffled.workspace[:] = before
            data = program.encode(position, ids)
            shuffled.io[entry.input : entry.input + len(data)] = data
            for number, value in program.registers(position, ids, False, position).items():
                shuffled.machine.registers[number] = value
            for written in shuffled.machine.written.values():
                written.fill(True)
            Shuffler(shuffled.machine, stream, seed).run()
            yield bool(
                np.array_equal(shuffled.io, straight.io)
                and np.array_equal(shuffled.workspace, straight.workspace)
            )
    assert state.dropped


def test_any_order_that_waits_allow() -> None:
    assert all(orders())


@pytest.mark.parametrize("opcode", [Opcode.BARRIER, Opcode.KEEP, Opcode.GEMM])
def test_every_wait_is_needed(opcode: Opcode) -> None:
    assert not all(orders(without=opcode))


def test_what_is_refused() -> None:
    shape, graph = random_graph(SEED, CONFIGS["4x4"])
    with pytest.raises(CompileError, match=r"'tiny' prunes no keys: .* 'base\+prune'"):
        lower_decoder(graph, "tiny", (1,))
    with pytest.raises(CompileError, match="for an array of 4 rows, not of 16"):
        lower_decoder(graph, "base+prune", (1,))
    plain = decoder(shape, SEED)
    for octaves in (0, 32):
        with pytest.raises(CompileError, match=f"within {octaves} octaves: 1 to 31"):
            with_pruning(plain, octaves, 4)
    with pytest.raises(CompileError, match="pruned keys and a window exclude each other"):
        with_pruning(with_window(plain, 8, 4), 3, 4)
