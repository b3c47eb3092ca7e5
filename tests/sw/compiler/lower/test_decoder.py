"""Decoders, lowered: golden executes what the integer reference says, however tokens are passed."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import COMMANDS, PRUNE_OPCODES, Opcode, Region, decode
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.decoder import Selection, new_state, run_pass
from sw.compiler.graph.operations import (
    QuantCachedAttention,
    QuantHead,
    QuantHeadNorm,
    QuantOp,
)
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.decoder_program import DecoderProgram, Entry, Register
from sw.golden.machine import GoldenMachine
from tests.sw.compiler.decoder_shapes import random_shape

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
SHAPES = int(os.environ.get("WEFT_TEST_DECODERS", "60"))
CONFIGS = {
    "4x4": PRESETS["tiny"],
    "16x16": PRESETS["base"],
    "8x16": dataclasses.replace(PRESETS["ulx3s"], name="8x16", scales=True, decoder=True),
    "16x8": AcceleratorConfig(name="16x8", columns=8, lanes=4, bus_bytes=8, decoder=True),
}
PASSES = (1, 3, 8, 20)


class Machine:
    """A decoder on the golden model, one sequence."""

    def __init__(self, program: DecoderProgram):
        self.program, self.key_slots = program, program.key_slots()
        self.machine = GoldenMachine(program.config)
        self.workspace = np.zeros(program.workspace_bytes, np.uint8)
        self.io = np.zeros(program.io_bytes, np.uint8)
        for offset, data in program.prefix_image:
            self.workspace[offset : offset + len(data)] = data
        self.machine.set_region(Region.CONSTANT, program.constants, False)
        self.machine.set_region(Region.WORKSPACE, self.workspace, True)
        self.machine.set_region(Region.IO, self.io, True)

    def run(self, position: int, ids: np.ndarray) -> Selection:
        """A pass; what the registers then hold is checked."""
        program, entry = self.program, self.program.entries[len(ids)]
        self._start(entry, position, ids, reading=False)
        size = 2 * entry.selected * program.output_bytes
        found = program.decode(entry, self.io[entry.output : entry.output + size])
        registers = self.machine.registers
        assert registers[Register.POSITION] == position + len(ids)
        assert registers[Register.TOKEN] == found.indices[-1, 0]
        return found

    def read(self, position: int, ids: np.ndarray) -> None:
        """A pass without the head, which leaves its output as it was."""
        before = self.io.copy()
        entry = self.program.entries[len(ids)]
        self._start(entry, position, ids, reading=True)
        assert (before[entry.output :] == self.io[entry.output :]).all()

    def _start(self, entry: Entry, position: int, ids: np.ndarray, reading: bool) -> None:
        data = self.program.encode(position, ids)
        self.io[entry.input : entry.input + len(data)] = 99 if entry.by_token else data
        slot = self.key_slots.of(position)
        for number, value in self.program.registers(position, ids, reading, slot).items():
            self.machine.registers[number] = value
        self.machine.run(entry.commands.tobytes())
        if entry.attention is not None:
            size = self.program.attention_bytes(entry)
            sums = self.io[entry.attention : entry.attention + size]
            self.key_slots.take(position, self.program.attention(entry, sums))


def assert_same(found: Selection, wanted: Selection, text: str) -> None:
    for field in dataclasses.fields(Selection):
        values = getattr(wanted, field.name)[-len(found.values) :]
        assert (getattr(found, field.name) == values).all(), f"{text}: {field.name}"


def in_passes(shape: DecoderShape, program: DecoderProgram, rng: np.random.Generator) -> list[int]:
    """Sizes of passes, at random, that fill the context."""
    position, sizes = shape.prefix, []
    while position < shape.context:
        fitting = [size for size in program.entries if size <= shape.context - position]
        sizes.append(int(rng.choice(fitting)))
        position += sizes[-1]
    return sizes


@pytest.mark.parametrize("part", range(4))
def test_random_decoders(part: int) -> None:
    """Every byte that a pass selects, to the end of the context, in passes of any sizes."""
    for seed in range(SEED + part, SEED + SHAPES, 4):
        rng = np.random.default_rng(seed)
        config = CONFIGS[str(rng.choice(list(CONFIGS)))]
        shape = random_shape(rng, rows=config.rows if config.scales else 0)
        graph = decoder(shape, seed)
        program = lower_decoder(graph, config, PASSES)
        machine, state = Machine(program), new_state(graph)
        for size in in_passes(shape, program, rng):
            text = f"seed {seed}, {config.name}, {size} tokens at {state.position}, {shape}"
            ids = rng.integers(0, shape.vocabulary, size)
            if rng.random() < 0.3:
                machine.read(state.position, ids)
                run_pass(graph, state, ids)
                continue
            found = machine.run(state.position, ids)
            assert_same(found, run_pass(graph, state, ids)[0], text)


SHAPE = DecoderShape(
    hidden=24,
    heads=4,
    kv_heads=2,
    dim=8,
    ffn=40,
    layers=2,
    vocabulary=120,
    context=50,
    key_block=16,
)


def test_heads_that_do_not_fit_together_are_taken_one_by_one() -> None:
    """Eight tokens of three heads that share keys: more rows than an accumulator of `tiny` has."""
    shape = dataclasses.replace(SHAPE, heads=6, dim=22, context=100, key_block=64)
    graph, rng = decoder(shape), np.random.default_rng(SEED)
    program = lower_decoder(graph, "tiny", (8,))
    assert all(not decode(word.tobytes()).values.get("period", 0) for word in words(program, 8))
    machine, state = Machine(program), new_state(graph)
    for size in (8, 8, 1, 8):
        ids = rng.integers(0, shape.vocabulary, size)
        found = machine.run(state.position, ids)
        assert_same(found, run_pass(graph, state, ids)[0], f"{size} tokens")


def words(program: DecoderProgram, tokens: int) -> np.ndarray:
    """Command words of an entry, [commands, bytes]."""
    return program.entries[tokens].commands.reshape(-1, 32)


def caches(program: DecoderProgram, machine: Machine) -> np.ndarray:
    """The workspace up to the first pass' own buffers: keys and values."""
    smallest = min(len(machine.workspace), program.cache_bytes)
    return machine.workspace[:smallest]


@pytest.mark.parametrize("head_norms", [False, True])
def test_passes_of_any_size_leave_the_same_caches(head_norms: bool) -> None:
    graph = decoder(dataclasses.replace(SHAPE, head_norms=head_norms))
    program = lower_decoder(graph, "tiny", (1, 4, 8, 32))
    ids = np.random.default_rng(SEED).integers(0, SHAPE.vocabulary, 32)
    images, selections = [], []
    for sizes in ([32], [8] * 4, [1] * 32, [4, 8, 1, 1, 8, 4, 4, 1, 1]):
        machine, position = Machine(program), 1
        for size in sizes:
            found = machine.run(position, ids[position - 1 : position - 1 + size])
            position += size
        images.append(caches(program, machine).copy())
        selections.append(found)
    for image, found in zip(images[1:], selections[1:], strict=True):
        np.testing.assert_array_equal(image, images[0])
        assert (found.indices[-1] == selections[0].indices[-1]).all()
        assert (found.total[-1] == selections[0].total[-1]).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_one_of_queries_and_keys_may_be_normalised(name: str) -> None:
    """Layers in turn: keys alone, queries alone; heads that fill neither words nor tiles."""
    shape = dataclasses.replace(SHAPE, head_norms=True, layers=2, dim=18, heads=6)
    graph = decoder(shape)
    norms = [op for op in graph.ops if isinstance(op, QuantHeadNorm)]
    plain = {norms[0].x: norms[0], norms[3].x: norms[3]}  # q of layer 0, k of layer 1

    def changed(op: QuantOp) -> QuantOp:
        norm = plain.get(getattr(op, "out16", None) or "")
        if norm is None:
            return op
        fields = {"out16": None, "out8": norm.out8, "second": norm.second, "angles": norm.angles}
        return dataclasses.replace(op, **fields)  # pyright: ignore[reportArgumentType]

    kept = [op for op in graph.ops if not any(op is norm for norm in plain.values())]
    graph.ops = [changed(op) for op in kept]
    machine, state = Machine(lower_decoder(graph, CONFIGS[name], PASSES)), new_state(graph)
    rng = np.random.default_rng(SEED)
    for size in (3, 20, 1, 8):
        ids = rng.integers(0, shape.vocabulary, size)
        found = machine.run(state.position, ids)
        assert_same(found, run_pass(graph, state, ids)[0], f"{name}, {size} tokens")


def test_more_words_of_a_head_than_a_command_has_rows() -> None:
    """64 rows of 64 words: the product that copies them is cut in two."""
    config = AcceleratorConfig(
        name="deep",
        rows=4,
        columns=4,
        lanes=2,
        bus_bytes=4,
        activation_words=65536,
        weight_words=16384,
        residual_words=32768,
        accumulator_words=32768,
        decoder=True,
    )
    shape = DecoderShape(
        hidden=4,
        heads=1,
        kv_heads=1,
        dim=256,
        ffn=4,
        layers=1,
        vocabulary=30,
        context=130,
        head_norms=True,
    )
    graph = decoder(shape)
    program = lower_decoder(graph, config, (1, 128))
    commands = [decode(word.tobytes()) for word in program.entries[128].commands.reshape(-1, 32)]
    rows = [c.values["rows"] for c in commands if c.opcode == Opcode.GEMM]
    assert max(rows) == 63 * 64
    machine, state = Machine(program), new_state(graph)
    ids = np.random.default_rng(SEED).integers(0, shape.vocabulary, 128)
    assert_same(machine.run(1, ids), run_pass(graph, state, ids)[0], "128 tokens")


def test_equal_logits_are_selected_in_order_and_summed() -> None:
    """Ties go to the earlier machine index; all equal, also more than 32,768 of them."""
    shape = dataclasses.replace(SHAPE, vocabulary=49152, layers=1, hidden=4, ffn=4)
    graph = decoder(shape)
    head = graph.ops[-1]
    assert isinstance(head, QuantHead)
    same = np.full_like(head.weight, 3)
    graph.ops[-1] = dataclasses.replace(head, weight=same, shift=np.full(49152, 20))
    machine, state = Machine(lower_decoder(graph, "base", (1,))), new_state(graph)
    found = machine.run(1, np.array([7]))
    assert_same(found, run_pass(graph, state, [7])[0], "49,152 equal logits")
    assert found.indices[0].tolist() == list(range(8))
    np.testing.assert_allclose(np.exp(found.log_probabilities()), 1 / 49152, rtol=0.01)


def test_cached_keys_behind_a_pass_do_not_matter() -> None:
    """What an earlier, longer sequence left in a cache is never seen."""
    graph = decoder(SHAPE)
    program = lower_decoder(graph, "tiny", (1, 4))
    clean, used = Machine(program), Machine(program)
    rng = np.random.default_rng(SEED)
    planes = caches(program, used)
    planes[:] = rng.integers(0, 256, len(planes), np.uint8)
    for offset, data in program.prefix_image:
        used.workspace[offset : offset + len(data)] = data
    for position, size in ((1, 4), (5, 1), (6, 4)):
        ids = rng.integers(0, SHAPE.vocabulary, size)
        assert_same(used.run(position, ids), clean.run(position, ids), f"at {position}")


def test_blocks_behind_the_position_are_dropped() -> None:
    program = lower_decoder(decoder(SHAPE), "tiny", (1,))
    machine = Machine(program)
    counts = []
    for position in (1, 16, 17, 40):
        entry = program.entries[1]
        machine.machine.registers[1] = position
        counts.append(machine.machine.run(entry.commands.tobytes()))
    assert counts[0] == counts[1] < counts[2] < counts[3]


def test_program_files(tmp_path) -> None:
    program = lower_decoder(decoder(SHAPE), "tiny", (1, 4))
    path = tmp_path / "decoder.safetensors"
    program.save(path)
    again = DecoderProgram.load(path)
    assert again.to_bytes() == program.to_bytes()
    for tokens, entry in program.entries.items():
        np.testing.assert_array_equal(again.entries[tokens].commands, entry.commands)
    ids = np.array([3])
    assert_same(Machine(again).run(1, ids), Machine(program).run(1, ids), "loaded")


def test_every_command_is_legal() -> None:
    program = lower_decoder(decoder(SHAPE), "tiny", (1, 32))
    for entry in program.entries.values():
        kinds = {decode(word.tobytes()).opcode for word in words(program, entry.tokens)}
        others = {Opcode.SPARSE_GEMM, Opcode.SCALED_GEMM, Opcode.BARRIER, *PRUNE_OPCODES}
        assert kinds == set(COMMANDS) - others


def test_tokens_that_are_not_there_are_refused() -> None:
    graph = decoder(SHAPE)
    state = new_state(graph)
    for ids, text in (
        ([120], "token 120 is outside 0..119"),
        ([-1], "token -1 is outside"),
        ([], "list of token numbers"),
        ([1.5], "list of token numbers"),
        ([0] * 50, "more than the context of 50"),
    ):
        with pytest.raises(InputError, match=text):
            run_pass(graph, state, ids)
    assert state.position == 1


def test_what_cannot_be_lowered_is_refused() -> None:
    graph = decoder(SHAPE)
    with pytest.raises(CompileError, match=r"'ulx3s' has no language models: .* decoder=True"):
        lower_decoder(graph, "ulx3s")

    def changed(**fields) -> None:
        ops = [
            dataclasses.replace(op, **fields) if isinstance(op, QuantCachedAttention) else op
            for op in graph.ops
        ]
        lower_decoder(dataclasses.replace(graph, ops=ops), "tiny")

    with pytest.raises(CompileError, match="blocks of 18 keys are no multiple of 4 rows"):
        changed(key_block=18)
    with pytest.raises(CompileError, match="the first block holds more than the prefix"):
        changed(lead=2)
    with pytest.raises(CompileError, match="heads that share keys need one score shift"):
        changed(score_shift=(9, 10, 9, 9))
    with pytest.raises(CompileError, match="a decoder ends with one head"):
        lower_decoder(dataclasses.replace(graph, ops=graph.ops[:-1]), "tiny")
