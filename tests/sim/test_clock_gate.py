"""A pipeline whose clock stands still, or whose registers do, beside one that never rests: the same
results."""

import ctypes
import random

import pytest
from amaranth import Cat, Fragment, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.clock_gate import GATED, gated
from hw.cells.technology import Technology
from hw.delay import DelayLine
from sim.export import component_verilog
from sim.verilator import DRAFT_CXX_FLAGS, build_library
from tests.sim.rtl import SEED
from tests.sim.test_netlist_cells import HARNESS, open_cells

DEPTH = 9
CYCLES = 5_000


class Pipeline(wiring.Component):
    """`o` is `i`, with its valid bit, `DEPTH` cycles later; beats: cycles it was clocked in."""

    i: In(8)
    valid: In(1)
    o: Out(9)
    beats: Out(16)

    def elaborate(self, platform):
        m = Module()
        value, valid = DelayLine(m, self.i, "i"), DelayLine(m, self.valid, "valid", reset=True)
        m.d.comb += self.o.eq(Mux(valid[DEPTH], Cat(valid[DEPTH], value[DEPTH]), 0))
        beats = Signal(16, reset_less=True)
        m.d.sync += beats.eq(beats + 1)
        m.d.comb += self.beats.eq(beats)
        return m


class Both(wiring.Component):
    """i: a value, its valid bit, a reset. o: results with a gate, with enables, and without either;
    beats with a gate, and cycles in which the enables say that they sleep."""

    def __init__(self, linger: int):
        self.linger = linger
        super().__init__({"i": In(10), "o": Out(3 * 9 + 2 * 16)})

    def elaborate(self, platform):
        m, results = Module(), []
        reset = dict.fromkeys(("sync", *GATED), self.i[9])
        asleep, slept = Signal(), Signal(16)
        m.d.sync += slept.eq(slept + asleep)
        for name, form, counted in (
            ("gate", Technology.SIMULATION, None),
            ("enables", Technology.PORTABLE, asleep),
            ("neither", Technology.PORTABLE, None),
        ):
            inner, part = Module(), Pipeline()
            inner.submodules.part = gated(
                inner, form, part, "lanes", busy=self.i[8], linger=self.linger, asleep=counted
            )
            inner.d.comb += [part.i.eq(self.i[:8]), part.valid.eq(self.i[8])]
            m.submodules[name] = ResetInserter(reset)(Fragment.get(inner, form))
            results.append(part)
        m.d.comb += self.o.eq(Cat(*(part.o for part in results), results[0].beats, slept))
        return m


def run(linger: int) -> int:
    """Cycles with a clock, of `CYCLES`; `AssertionError` for another result."""
    text = component_verilog(Both(linger), platform=Technology.SIMULATION)
    model = open_cells(build_library(text, HARNESS, "", cxx_flags=DRAFT_CXX_FLAGS)[0])
    handle, rng = model.cells_make(), random.Random(SEED)
    out, rate = ctypes.create_string_buffer(16), 0.0
    for cycle in range(CYCLES):
        if cycle % 50 == 0:
            rate = rng.choice([0.0, 0.02, 0.5, 1.0])
        valid, reset = rng.random() < rate, rng.random() < 0.01
        stimulus = rng.randrange(256) | valid << 8 | reset << 9
        model.cells_step(handle, stimulus.to_bytes(8, "little"), out)
        found = int.from_bytes(out.raw, "little")
        gate, enables, neither = (found >> 9 * i & 511 for i in range(3))
        assert gate == enables == neither, f"seed {SEED}, cycle {cycle}"
    beats, slept = found >> 27 & 0xFFFF, found >> 43 & 0xFFFF
    assert abs(beats + slept - CYCLES) <= 2, f"{beats} cycles with a clock, {slept} without"
    return beats


def test_results_are_the_same_and_the_clock_stands_still():
    assert CYCLES // 4 < run(DEPTH) < CYCLES * 9 // 10


def test_a_clock_that_stops_too_early_is_found():
    with pytest.raises(AssertionError, match="cycle"):
        run(DEPTH - 1)
