"""Every cycle of the matrix unit gets exactly one cause."""

from __future__ import annotations

import itertools

from amaranth.sim import Simulator

from hw.control.stalls import MATRIX_COUNTERS, Stalls
from hw.interfaces import MatrixState
from hw.isa import Unit

CAUSE = {
    Unit.LOAD_WEIGHTS: "matrix_wait_load",
    Unit.LOAD_ACTIVATIONS: "matrix_wait_load",
    Unit.VECTOR: "matrix_wait_vector",
    Unit.STORE: "matrix_wait_store",
}


def expected(state: MatrixState, waiting: Unit, weights_waiting: Unit, behind: bool) -> str:
    if state == MatrixState.BUSY:
        return "matrix_busy"
    if state == MatrixState.ACTIVATIONS:
        return "matrix_activations"
    if state == MatrixState.WEIGHTS:
        return CAUSE.get(weights_waiting, "matrix_weights") if behind else "matrix_weights"
    return CAUSE.get(waiting, "matrix_idle")


def test_causes():
    stalls = Stalls()

    async def main(ctx):
        # The stream side two commands ahead, level, and two commands behind.
        for ahead in (2, 0, -2):
            pulse = stalls.i_taken if ahead == 2 else stalls.i_weights_taken
            for _ in range(2):
                ctx.set(pulse, 1)
                await ctx.tick()
                ctx.set(pulse, 0)
            for state, waiting, weights in itertools.product(MatrixState, Unit, Unit):
                ctx.set(stalls.i_state, state)
                ctx.set(stalls.i_waiting_for, waiting)
                ctx.set(stalls.i_weights_waiting_for, weights)
                name = expected(state, waiting, weights, ahead > 0)
                assert ctx.get(stalls.o) == 1 << MATRIX_COUNTERS.index(name), name

    simulator = Simulator(stalls)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
