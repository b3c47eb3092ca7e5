"""Optimisations switched off one by one: the same bytes, other commands, no fewer cycles."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import COMMANDS, MATRIX_OPCODES, Opcode, Unit
from sw.bench.cases import Encoder
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.pruning import with_pruning
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.lower.switches import ALL_ON, Switches
from sw.compiler.program.decoder_program import DecoderProgram
from sw.driver import open_device
from tests.sim.rtl import CONFIGS as RTL_CONFIGS
from tests.sim.rtl import open_pair
from tests.sw.compiler.decoder_shapes import random_shape
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import (
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)
from tests.sw.compiler.shuffle import commands_of, shuffled

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
NAMES = tuple(field.name for field in dataclasses.fields(Switches))
OFF = {name: Switches(**{name: False}) for name in NAMES}
OFF["all"] = Switches(**dict.fromkeys(NAMES, False))
PASSES = (1, 3, 8)


def random_graph(config: AcceleratorConfig, seed: int):
    """An encoder, causal, masked, biased or not, or what encoders do not have."""
    random = np.random.default_rng([SEED, seed])
    causal, masked, biased = (bool(random.integers(2)) for _ in range(3))
    if seed == 0:
        return random_mixture(SEED, formats=formats_of(config))
    return random_encoder(
        seed, tokens=int(random.integers(2, 40)), hidden=40, heads=2, ffn=56, causal=causal,
        masked=masked, biased=biased, key_block=int(random.choice([8, 16, 64])),
        formats=formats_of(config),
    )  # fmt: skip


@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("name", CONFIGS)
def test_golden_gives_the_same(name, off):
    config = CONFIGS[name]
    for seed in range(3):
        print(f"seed {SEED}, {seed} on {name} without {off}")
        graph = random_graph(config, seed)
        inputs = random_inputs(graph, seed)
        plain = lower(graph, config, switches=OFF[off])
        fast = lower(graph, config)
        want = fast.read_outputs(run_golden(fast, inputs))
        for io in (run_golden(plain, inputs), shuffled(plain, inputs, seed)):
            for found, rows in zip(plain.read_outputs(io), want, strict=True):
                np.testing.assert_array_equal(found, rows)


def test_on_the_rtl():
    """Every byte of memory, with stalls."""
    for seed, name in enumerate(("4x4", "8x4"), 1):
        config = RTL_CONFIGS[name]
        graph = random_graph(config, seed)
        with open_pair(config, stall_seed=SEED) as pair:
            for off, switches in OFF.items():
                program = lower(graph, config, switches=switches)
                for device in pair.devices:
                    device.load(program)(*random_inputs(graph, SEED))
                pair.assert_same_memory(f"seed {seed} on {name} without {off}")


def _texts(program: DecoderProgram, shape: DecoderShape, seed: int) -> list[np.ndarray]:
    """Candidates and logits of passes of all sizes."""
    ids = np.random.default_rng(seed).integers(0, shape.vocabulary, shape.context)
    found = []
    with open_device("golden", config=program.config) as device:
        session = device.load_decoder(program).session()
        for size in sorted(program.entries):
            if size <= session.room:
                prediction = session.prefill(ids[:size].tolist())
                found += [prediction.tokens, prediction.log_probabilities]
    return found


@pytest.mark.parametrize("off", OFF)
def test_decoders_say_the_same(off):
    for seed in range(4):
        shape = random_shape(np.random.default_rng([SEED, seed]), largest=16, rows=4)
        graph = decoder(shape, seed)
        print(f"seed {SEED}, {seed} without {off}: {shape}")
        fast = lower_decoder(graph, PRESETS["tiny"], PASSES)
        plain = lower_decoder(graph, PRESETS["tiny"], PASSES, OFF[off])
        assert any(
            not np.array_equal(plain.entries[n].commands, entry.commands)
            for n, entry in fast.entries.items()
        )
        for found, want in zip(_texts(plain, shape, seed), _texts(fast, shape, seed), strict=True):
            np.testing.assert_array_equal(found, want)


def test_decoders_on_the_rtl():
    shape = random_shape(np.random.default_rng(SEED), largest=16, rows=4)
    for off, switches in OFF.items():
        program = lower_decoder(decoder(shape, SEED), PRESETS["tiny"], PASSES, switches)
        ids = np.random.default_rng(SEED).integers(0, shape.vocabulary, shape.context)
        with open_pair(PRESETS["tiny"], stall_seed=SEED) as pair:
            sessions = [device.load_decoder(program).session() for device in pair.devices]
            for size in (n for n in sorted(program.entries) if n <= shape.context // 4):
                golden, rtl = (session.prefill(ids[:size].tolist()) for session in sessions)
                np.testing.assert_array_equal(golden.tokens, rtl.tokens)
                pair.assert_same_memory(f"{size} tokens without {off}")


def _opcodes(program) -> list[Opcode]:
    return [command.opcode for command in commands_of(program)]


def _bytes_of_loads(program) -> int:
    moved = (c["words"] * c["runs"] for c in commands_of(program) if c.opcode == Opcode.LOAD)
    return sum(moved)


def test_each_switch_does_what_it_says():
    """On a layer of an encoder: cycles, products, transfers."""
    graph = Encoder(hidden=128, heads=4, ffn=256, seq=160, layers=2).graph()
    fast = lower(graph, "base")
    plain = {off: lower(graph, "base", switches=switches) for off, switches in OFF.items()}
    for off, program in plain.items():
        assert program.estimated_cycles > fast.estimated_cycles, off
    # Whatever takes turns does as much as before; two passes multiply more; unfused moves more.
    assert sorted(_opcodes(plain["prefetch"])) == sorted(_opcodes(fast))
    products, softmax = (
        {name: sum(op in kinds for op in _opcodes(p)) for name, p in plain.items()}
        for kinds in (MATRIX_OPCODES, {Opcode.SOFTMAX})
    )
    assert softmax["one_pass"] == 2 * softmax["prefetch"] > 0
    assert products["one_pass"] == products["prefetch"] + softmax["prefetch"]
    assert _bytes_of_loads(plain["fuse"]) > 1.2 * _bytes_of_loads(fast)
    assert _bytes_of_loads(plain["prefetch"]) == _bytes_of_loads(fast)


def test_loads_take_turns():
    """Without prefetch no load begins before the products and vectors in front of it are done."""
    graph = Encoder(hidden=64, heads=2, ffn=96, seq=40, layers=1).graph()
    overlaps = {}
    for switches in (ALL_ON, OFF["prefetch"]):
        program = lower(graph, "base", switches=switches)
        unit = np.array([_unit(command.opcode) for command in commands_of(program)])
        start = program.command_start[:-1].astype(np.int64)
        end = start + program.command_work[:-1]
        loads, computing = (np.isin(unit, units) for units in ([1], [2]))
        pairs = (start[loads, None] < end[computing]) & (start[computing] < start[loads, None])
        overlaps[switches] = int(pairs.sum())
    assert overlaps[ALL_ON] > 0 and overlaps[OFF["prefetch"]] == 0


def _unit(opcode: Opcode) -> int:
    """1: loads; 2: what computes."""
    if opcode == Opcode.LOAD:
        return 1
    return 2 if COMMANDS[opcode].units[:1] in ((Unit.MATRIX,), (Unit.VECTOR,)) else 0


def test_pruned_keys_need_one_pass():
    shape = DecoderShape(
        hidden=8, heads=2, kv_heads=1, dim=4, ffn=8, layers=1, vocabulary=20, context=40,
        key_block=16,
    )  # fmt: skip
    graph = with_pruning(decoder(shape), 3, 4)
    with pytest.raises(CompileError, match="one pass"):
        lower_decoder(graph, "tiny+prune", (1,), OFF["one_pass"])
