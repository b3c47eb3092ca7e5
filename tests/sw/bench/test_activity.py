"""What a measurement says of activity, and that a wrong count ends the command."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from hw.config import get_config
from hw.isa import COMMANDS, Command, Opcode
from sw.bench.activity import asleep_of_idle, counted, with_sleep
from sw.bench.cases import Gemm, random_inputs
from sw.cli import bench as command
from sw.cli.main import cli
from sw.compiler.lower.lower import lower
from sw.driver import open_device
from sw.golden.activity import EXACT
from sw.golden.machine import GoldenMachine, UndefinedCommand
from tests.hw.programs import WRITABLE, RandomProgram, assemble
from tests.sim.rtl import SEED

CONFIG = get_config("tiny")


class Counting:
    """A device that counted what it is given, and whose array slept for 70 of 80 idle cycles."""

    def __init__(self, counts: dict[str, int]):
        self.counts = counts

    def activity(self) -> dict[str, int]:
        return {**self.counts, "idle_array": 80, "asleep_array": 70, "asleep_lanes": 10}


def test_golden_counts_a_product_of_matrices():
    """4x8x12 on a 4x4: counts that can be done by hand."""
    program = with_sleep(lower(Gemm(4, 8, 12).graph(), CONFIG))
    with open_device("golden", config=program.config) as golden:
        for _ in range(2):  # of the last run alone
            golden.load(program).run_io(program.prepare_inputs(*random_inputs(program.graph)))
        found = golden.activity()
    stream = GoldenMachine(program.config).count(program.commands.tobytes())
    assert {name: stream[name] for name in found} == found
    tiles, groups = 2 * 3, 4 * 12 // CONFIG.lanes
    assert (found["tiles"], found["rows_int8"], found["groups_requantise"]) == (6, 24, groups)
    assert found["weight_read_matrix"] == found["weight_entries"] == tiles * 4
    assert found["accumulator_write_matrix"] == 24 and found["accumulator_read_matrix"] == 12
    assert found["accumulator_read_vector"] == 4 * 3
    assert found["activation_write_vector"] == found["activation_read_store"] == 4 * 3
    assert found["param0_read"] == groups and found["param0_write"] == 12 // CONFIG.lanes
    assert not any(found[name] for name in found if name not in EXACT)


def test_a_program_with_sleep_has_the_same_commands():
    program = lower(Gemm(16, 8, 12).graph(), CONFIG)
    other = lower(Gemm(16, 8, 12).graph(), get_config("tiny+sleep"))
    assert np.array_equal(program.commands, other.commands)
    assert np.array_equal(program.constants, other.constants)
    assert with_sleep(program).fingerprint == other.fingerprint != program.fingerprint


def test_a_stream_is_counted_without_being_executed():
    """Random programs with registers, predicates and trimmed tiles."""
    config = get_config("tiny+sleep")
    for seed in range(SEED, SEED + 20):
        generated = RandomProgram(config, random.Random(seed), 30)
        program = assemble(generated.commands)
        counting, executing = GoldenMachine(config), GoldenMachine(config)
        for number, value in generated.registers.items():
            counting.registers[number] = executing.registers[number] = value
        for region, data in generated.image().items():
            executing.set_region(region, data, region in WRITABLE)
        executing.activity = Counter()
        executing.run(program)
        assert counting.count(program) == executing.activity, f"seed {seed}"


def test_a_stream_that_depends_on_results_has_no_count():
    fields = {item.name: max(item.nonzero, 0) for item in COMMANDS[Opcode.SELECT].all_fields}
    select = Command(Opcode.SELECT, fields | {"register": 7})
    add = Command(Opcode.ADD, {"register": 7, "predicate": 0, "value": 1})
    assert GoldenMachine(CONFIG).count(assemble([add, select]))["groups_select"] == 1
    with pytest.raises(UndefinedCommand, match="command 1 depends on what one before it finds"):
        GoldenMachine(CONFIG).count(assemble([select, add]))


def test_a_wrong_count_is_found():
    right = dict.fromkeys(EXACT, 5)
    assert counted(right, Counting(right))["activity_exact"]  # type: ignore[arg-type]
    for name in EXACT:
        assert not counted(right, Counting({**right, name: 6}))["activity_exact"]  # type: ignore[arg-type]


def test_what_is_asleep_of_idle_cycles():
    counts = {"idle_array": 40, "asleep_array": 20, "asleep_lanes": 80}
    shares = asleep_of_idle({"cycles": 100, "vector_busy": 20, "activity": counts})
    assert shares == {"array": 0.5, "lanes": 1.0, "both": 100 / 120}
    counts = {"idle_array": 0, "asleep_array": 0, "asleep_lanes": 0}
    shares = asleep_of_idle({"cycles": 9, "vector_busy": 9, "activity": counts})
    assert shares == {"array": 1.0, "lanes": 1.0, "both": 1.0}


@pytest.mark.parametrize(("found", "code"), [(5, 0), (6, 2)])
def test_bench_ends_with_2_where_counts_are_wrong(found, code, monkeypatch):
    names = """cycles estimated_cycles useful_macs matrix_busy vector_busy dram_read_bytes commands
        dram_write_bytes onchip_bytes utilization bandwidth_utilization command_share simulated_khz
        wall_seconds"""
    right = dict.fromkeys(EXACT, 5)
    counts = counted(right, Counting({**right, "tiles": found}))  # type: ignore[arg-type]
    result = {**dict.fromkeys(names.split(), 50), "cycles": 100, "stalls": {}, "bit_exact": True}
    asked = {}

    def measure(case, **options):
        asked.update(options)
        return {**result, **counts}

    monkeypatch.setattr(command, "measure", measure)
    done = CliRunner().invoke(cli, ["bench", "gemm", "--shape", "4x4x4", "--activity"])
    assert asked["activity"] and done.exit_code == code, done.output
    assert "87.5%" in done.output  # 70 of 80
