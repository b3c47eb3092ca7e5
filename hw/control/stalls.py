"""Names the cause of every cycle of the matrix unit, for the `matrix_*` counters."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import MatrixState
from hw.isa import Unit
from hw.registers import COUNTERS

__all__ = ["MATRIX_COUNTERS", "Stalls"]

MATRIX_COUNTERS = tuple(name for name in COUNTERS if name.startswith("matrix_"))

_STATES = {
    MatrixState.BUSY: "matrix_busy",
    MatrixState.WEIGHTS: "matrix_weights",
    MatrixState.ACTIVATIONS: "matrix_activations",
}
_WAITS = {
    Unit.LOAD_WEIGHTS: "matrix_wait_load",
    Unit.LOAD_ACTIVATIONS: "matrix_wait_load",
    Unit.VECTOR: "matrix_wait_vector",
    Unit.STORE: "matrix_wait_store",
}

AHEAD_BITS = 6
"""The sides of the matrix unit are never further apart than what both queues and units hold."""


class Stalls(wiring.Component):
    """Exactly one bit of `o` is 1, so the counters add up to all cycles.

    An idle unit is put down to what the head of its stream queue waits for. A unit that lacks
    weights is put down to what the head of its weight queue waits for, if those are weights of a
    command that already streams; else the loader of tiles is to blame (`matrix_weights`).

    Latency: 0. Flow control: none.

    Members
    -------
    i_state: from the matrix unit. i_waiting_for, i_weights_waiting_for: from its queues.
    i_taken, i_weights_taken: a command has passed the queue. o: by `MATRIX_COUNTERS`.
    """

    def __init__(self):
        super().__init__(
            {
                "i_state": In(MatrixState),
                "i_waiting_for": In(Unit),
                "i_weights_waiting_for": In(Unit),
                "i_taken": In(1),
                "i_weights_taken": In(1),
                "o": Out(len(MATRIX_COUNTERS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Commands that the weight side has taken beyond those of the stream side, signed.
        ahead = Signal(AHEAD_BITS + 1)
        m.d.sync += ahead.eq(ahead + self.i_weights_taken - self.i_taken)
        behind = ahead[-1]

        def count(name):
            m.d.comb += self.o.eq(1 << MATRIX_COUNTERS.index(name))

        def count_cause(waiting_for, otherwise):
            with m.Switch(waiting_for):
                for unit, name in _WAITS.items():
                    with m.Case(unit):
                        count(name)
                with m.Default():
                    count(otherwise)

        with m.Switch(self.i_state):
            for state, name in _STATES.items():
                with m.Case(state):
                    if state == MatrixState.WEIGHTS:
                        with m.If(behind):
                            count_cause(self.i_weights_waiting_for, name)
                        with m.Else():
                            count(name)
                    else:
                        count(name)
            with m.Default():
                count_cause(self.i_waiting_for, "matrix_idle")
        return m
