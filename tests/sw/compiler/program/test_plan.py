"""What `weft inspect` shows: sums that must hold, and live words counted one by one."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from hw.config import PRESETS
from hw.isa import COMMAND_BYTES, MATRIX_OPCODES, decode
from sw.bench.cases import Attention, Encoder, Gemm, MiniLM, Workload
from sw.compiler import compile_module
from sw.compiler.program.plan import make_plan
from sw.compiler.program.program import Program
from sw.compiler.stream.access import Space, accesses, weight_accesses

TINY = PRESETS["tiny"]
WORKLOADS: tuple[Workload, ...] = (
    Gemm(24, 40, 20),
    Attention(2, 20, 8),
    Encoder(16, 2, 32, 12, layers=2),
)


@pytest.fixture(scope="module", params=WORKLOADS, ids=lambda workload: workload.title)
def program(request) -> Program:
    return request.param.program(TINY)


def _decoded(program):
    data = program.commands.tobytes()
    return [decode(data[i : i + COMMAND_BYTES]) for i in range(0, len(data), COMMAND_BYTES)]


def test_parts_add_up(program):
    plan = make_plan(program)
    commands = _decoded(program)
    assert plan.cycles == program.estimated_cycles
    assert sum(stage.cycles for stage in plan.stages) + plan.tail == plan.cycles
    assert all(0 <= stage.busy <= stage.cycles for stage in plan.stages)
    assert plan.tail >= 0
    assert plan.units.total() == len(commands)
    gemms = [command for command in commands if command.opcode in MATRIX_OPCODES]
    assert sum(stage.tiles.total() for stage in plan.stages) == len(gemms)
    macs = sum(
        m * k * n * count for stage in plan.stages for (m, k, n), count in stage.tiles.items()
    )
    assert macs >= program.useful_macs
    assert {stage.place for stage in plan.stages} <= {name or "(top)" for name in program.places}


def test_live_words(program):
    """The peaks, from the list of every single touch of every single word."""
    touches = defaultdict(list)
    commands = _decoded(program)
    for index, command in enumerate(commands):
        found = accesses(TINY, command.opcode, command.values)
        if command.opcode in MATRIX_OPCODES:
            found += weight_accesses(TINY, command.opcode, command.values)
        for access in sorted(found, key=lambda item: item.write):
            adds = access.space == Space.ACCUMULATOR and command.values.get("accumulate")
            for run in range(access.outer):
                for word in range(access.inner):
                    key = access.space, access.base + run * access.stride + word
                    touches[key].append((index, access.write and not adds))
    live = defaultdict(lambda: np.zeros(len(commands), int))
    for (space, _), history in touches.items():
        starts = [i for i, (_, write) in enumerate(history) if write]
        for start, end in zip(starts, [*starts[1:], len(history)], strict=False):
            last = history[end - 1][0] + 1
            if end < len(history):  # a command that reads and writes a word holds it once
                last = min(last, history[end][0])
            live[space][history[start][0] : last] += 1
    parts = 50
    ends = np.linspace(0, program.estimated_cycles, parts + 1)[1:]
    started = np.searchsorted(program.command_start, ends, side="right")
    plan = make_plan(program, parts)
    for memory in plan.memories:
        space = Space[memory.name.removesuffix(" rows").upper()]
        assert memory.peak == live[space].max(initial=0), memory.name
        assert memory.touched == len([key for key in touches if key[0] == space])
        assert max(memory.over_time) == memory.peak <= memory.capacity
        for part, first, end in zip(memory.over_time, [1, *started], started, strict=False):
            assert part == live[space][max(first - 1, 0) : end].max(initial=0)


def test_traffic_of_a_gemm_in_two_row_tiles():
    config = PRESETS["base"]
    (stage,) = make_plan(Gemm(128, 64, 96).program(config)).stages[-1:]
    assert stage.weights is not None and stage.inputs is not None
    assert stage.weights.unique_bytes == 64 * 96
    assert stage.weights.times == len({m for m, _, _ in stage.tiles}) * 2
    assert (stage.inputs.unique_bytes, stage.inputs.times) == (128 * 64, 1)


def test_attention_needs_no_more_memory_for_more_keys():
    config = PRESETS["base"]
    few, many = (make_plan(Attention(1, n, 64).program(config)) for n in (512, 1024))
    assert few.peak_bytes == many.peak_bytes


def test_titles_and_commands():
    assert MiniLM(7).command == "weft bench minilm --tokens 7"
    assert Attention(1, 2, 3, causal=True).command.endswith("--dim 3 --causal")


def test_parts_of_a_real_module_are_named_by_path_and_class():
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    rows = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    plan = make_plan(compile_module(module, (rows,), TINY, [rows.numpy()]))
    assert [stage.place for stage in plan.stages] == ["0 (Linear)", "2 (Linear)"]
