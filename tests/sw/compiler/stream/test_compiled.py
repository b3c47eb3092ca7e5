"""Waits and starts in C++ are those that Python specifies, and tables say what commands say."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hw.config import get_config
from hw.isa import MATRIX_OPCODES, Opcode
from sim import library
from sw.bench.decoders import decoder
from sw.compiler.graph.pruning import with_pruning
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.lower.switches import Switches
from sw.compiler.stream import compiled, emit, order, starts, waits
from sw.compiler.stream.access import access_table, accesses, weight_accesses
from sw.compiler.stream.commands import Commands
from sw.compiler.stream.emit import Stream
from tests.hw.programs import RandomProgram
from tests.sw.compiler.decoder_shapes import random_shape
from tests.sw.compiler.execution import CONFIGS
from tests.sw.compiler.random_graphs import formats_of, random_mixture

TINY = get_config("tiny+prune")


class Both:
    """Stands in for the C++ functions: compares what the two forms find. Counts commands without
    effect, waits of weights, and commands that start in another order than they were emitted."""

    def __init__(self):
        self.relays = self.loads = self.overtaking = 0

    def find_waits(self, touching: waits.Touching) -> waits.Found:
        found, want = compiled.find_waits(touching), waits.find_waits(touching)
        for name in ("before", "waits", "first_use"):
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name), name)
        self.relays += len(found.before)
        self.loads += len(found.first_use)
        return found

    def find_starts(self, queued: starts.Queued) -> starts.Starts:
        found, want = compiled.find_starts(queued), starts.find_starts(queued)
        for name in ("order", "start", "end"):
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name), name)
        self.overtaking += np.count_nonzero(np.diff(found.order) < 0)
        return found


@pytest.fixture
def both(monkeypatch) -> Both:
    assert compiled._library() is not None, "there is no C++ compiler"
    found = Both()
    monkeypatch.setattr(emit, "find_waits", found.find_waits)
    monkeypatch.setattr(order, "find_starts", found.find_starts)
    return found


def test_modules(both):
    for seed in range(3):
        for config in CONFIGS.values():
            print(f"seed {seed}, {config.name}")
            graph = random_mixture(seed, formats=formats_of(config))
            lower(graph, config)
            lower(graph, config, switches=Switches(prefetch=False))
    assert both.loads and both.overtaking and both.relays


def test_decoders(both):
    for seed in range(6):
        print(f"seed {seed}")
        graph = decoder(random_shape(np.random.default_rng(seed)), seed)
        if seed % 2:
            graph = with_pruning(graph, 4, TINY.rows)
        lower_decoder(graph, TINY, (1, 3, 9))
    assert both.loads and both.overtaking


def test_random_programs(both):
    """Commands that meet in the same words, registers, predicates, and few slots for waits."""
    for seed in range(30):
        print(f"seed {seed}")
        stream = RandomProgram(TINY, random.Random(seed), 30).emitter.stream()
        order.merge(stream)
    assert both.relays and both.overtaking


def test_without_a_compiler(monkeypatch):
    """Python finds the same where there is no compiler."""

    def none():
        raise library.NoCompilerError("none")

    want = lower(random_mixture(1), TINY).commands
    compiled._library.cache_clear()
    monkeypatch.setattr(library, "find_compiler", none)
    try:
        assert compiled._library() is None
        np.testing.assert_array_equal(lower(random_mixture(1), TINY).commands, want)
    finally:
        compiled._library.cache_clear()


def _streams() -> list[Stream]:
    return [
        RandomProgram(config, random.Random(seed), 40).emitter.stream()
        for seed in range(10)
        for config in (TINY, CONFIGS["4x4"], CONFIGS["12x8"])
    ]


def test_tables_have_the_accesses_of_each_command():
    for stream in _streams():
        c, commands = stream.config, stream.commands
        table, begin = access_table(c, commands, np.zeros(len(commands), np.int64))
        for number, opcode in enumerate(map(Opcode, commands.opcode.tolist())):
            v = commands.values(number)
            want = [(0, *access) for access in accesses(c, opcode, v)]
            if opcode in MATRIX_OPCODES:
                want += [(1, *access) for access in weight_accesses(c, opcode, v)]
            rows = table[begin[number] : begin[number + 1]].tolist()
            assert list(map(tuple, rows)) == want, f"{opcode.name} {v}"


def test_columns_have_the_fields_of_each_command():
    for stream in _streams():
        commands: Commands = stream.commands
        seen = []
        for _, numbers, columns in commands.alike():
            seen += numbers.tolist()
            for row, number in enumerate(numbers.tolist()):
                found = {name: int(column[row]) for name, column in columns.items()}
                assert found == commands.values(number)
        assert sorted(seen) == list(range(len(commands)))
