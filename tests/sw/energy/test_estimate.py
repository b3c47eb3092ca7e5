"""Estimates: counts of commands are those of a run, and energies are sums of what is in them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from hw.config import get_config
from sw.bench.cases import Attention, Encoder, Gemm, random_inputs
from sw.driver import open_device
from sw.energy import Counts, Quantity, estimate, measured, predicted, read_table
from sw.energy.machine import PARTS, actions
from sw.golden.activity import EXACT
from tests.sim.rtl import SEED
from tests.sim.test_activity import CONFIG

WORKLOADS = (Gemm(9, 24, 20), Attention(2, 12, 8), Encoder(16, 2, 32, 8))
TABLE = "horowitz-45nm"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.title)
def test_a_program_counts_what_a_run_does(workload):
    """All but time: activity, commands, and bytes of DRAM."""
    program = workload.program(CONFIG)
    io = program.prepare_inputs(*random_inputs(program.graph, SEED))
    with open_device("verilator", CONFIG, optimise=False) as device:
        device.load(program).run_io(io)
        run = measured(CONFIG, {**device.counters(), "activity": device.activity()})
    said = predicted(program)
    assert {n: said[n] for n in EXACT} == {n: run[n] for n in EXACT}
    assert (said.commands, said.write_bytes) == (run.commands, run.write_bytes)
    assert said.read_bytes == run.read_bytes
    ours, its = estimate(said, TABLE), estimate(run, TABLE)
    assert ours.total == pytest.approx(its.total, rel=0.1)
    for part in ("array", "vector", "accumulator", "dram"):
        assert ours.parts[part] == its.parts[part]


def counts(seed: int, config=CONFIG) -> Counts:
    rng = random.Random(seed)
    activity = {name: rng.randrange(10_000) for name in EXACT}
    return Counts(config, 20_000, activity, 4096, 512, 40)


@pytest.mark.parametrize("seed", range(5))
def test_everything_is_counted_once(seed):
    """Cycles of a unit are awake, idle or asleep; and twice as much takes twice the energy."""
    once = counts(seed)
    slept = {"asleep_array": 3000, "asleep_lanes": 2000, "asleep_store": 700}
    once = replace(once, activity={**once.activity, **slept, "idle_array": 5000})
    clocks = [a for a in actions(CONFIG) if a.component == "weft.clock.array"]
    assert [a.count(once) for a in clocks] == [15_000, 2000, 3000]
    energy = estimate(once, TABLE)
    assert set(energy.parts) <= set(PARTS)
    assert sum(q.value for q in energy.parts.values()) == pytest.approx(energy.total)
    assert energy.low <= energy.total <= energy.high
    twice = replace(
        once, cycles=40_000, read_bytes=8192, write_bytes=1024, commands=80,
        activity={name: 2 * n for name, n in once.activity.items()},
    )  # fmt: skip
    assert estimate(twice, TABLE).total == pytest.approx(2 * energy.total)


def test_every_counter_has_its_price():
    """No count of accesses, rows or groups is forgotten: one more of each takes more energy."""
    none = Counts(CONFIG, 0, {}, 0, 0, 0)
    free = {"tiles", "rows_of_halves", "activation_read_pair"}  # in others
    for name in set(EXACT) - free:
        energy = estimate(replace(none, activity={name: 1000}), TABLE)
        assert energy.total > 0, name


def test_sleep_saves_registers_and_nothing_else():
    awake = counts(7)
    asleep = replace(awake, activity={**awake.activity, "asleep_lanes": 9000})
    before, after = estimate(awake, TABLE), estimate(asleep, TABLE)
    assert after.total < before.total
    rest = [part for part in before.parts if not part.startswith("clock")]
    assert all(before.parts[part] == after.parts[part] for part in rest)


def test_larger_memories_and_arrays_cost_more():
    small, large = get_config("tiny"), replace(get_config("tiny"), weight_words=32768)
    of = [estimate(counts(3, config), TABLE).parts["weight"] for config in (small, large)]
    assert of[0].value < of[1].value


def test_quantities():
    assert Quantity(2, 1, 3) + Quantity(1, 0, 4) == Quantity(3, 1, 7)
    assert Quantity(2, 1, 3) * 2 == Quantity(4, 2, 6)
    assert Quantity(2, 1, 3).spread == (-0.5, 0.5) and Quantity().spread == (0, 0)
    assert read_table(TABLE).unit == "pJ"
