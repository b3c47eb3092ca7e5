"""Softmax state of the rows on chip: OCTAVE and LARGEST, the sum L, and the last SHIFT."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import RowPort
from hw.isa import SELECTED, SUM_BITS
from hw.softmax.exp2 import OCTAVE_BITS

__all__ = ["DROP_BITS", "SHIFT_BITS", "SoftmaxState"]

SHIFT_BITS = 6
"""Signed: -7 (seven to the left) to 31."""
DROP_BITS = 3
LEFT = 8


class SoftmaxState(wiring.Component):
    """Row memories of the online softmax.

    ```
    OCTAVE, LARGEST, SHIFT[step_slot] = step_octave, + step_drop, step_shift      at a row's start
    L[update_slot] = (first ? 0 : round(L[update_slot], shift)) + total           at its end
    ```
    Number format: OCTAVE signed 26 bits; LARGEST is kept as its distance from it, 0 to 7. L
    unsigned 42 bits, units of 2^-25 of the octave. SHIFT -7 (left) to 31.

    Latency: reads one cycle; L is written five cycles after `update_slot`, visible from the
    sixth. Throughput: a row a cycle. Flow control: none. Collisions as in `RowStatistics`, but
    within six cycles.

    Members
    -------
    slot, octave, drop, total: the row engine reads OCTAVE, LARGEST - OCTAVE and L.
    step_slot, step_octave, step_drop, step_shift, step: the row engine writes them and SHIFT.
    update_slot: stage 0. update_shift: stage 1. update_first: stage 3. update_total: stage 4.
        update: stage 5: write L.
    shift: the matrix unit reads SHIFT.
    row, row_octave, row_total: SELECT reads OCTAVE and L, of the first rows, twice `SELECTED`.

    Parameters
    ----------
    row_slots: rows. selection: there is SELECT, and for it a copy of the first rows.
    """

    def __init__(self, row_slots: int, *, selection: bool = False):
        self.row_slots = row_slots
        self.selection = selection
        copies = {
            "row": In(range(2 * SELECTED)),
            "row_octave": Out(signed(OCTAVE_BITS)),
            "row_total": Out(SUM_BITS),
        }
        super().__init__(
            {
                "slot": In(10),
                "octave": Out(signed(OCTAVE_BITS)),
                "drop": Out(DROP_BITS),
                "total": Out(SUM_BITS),
                "step_slot": In(10),
                "step_octave": In(signed(OCTAVE_BITS)),
                "step_drop": In(DROP_BITS),
                "step_shift": In(signed(SHIFT_BITS)),
                "step": In(1),
                "update_slot": In(10),
                "update_first": In(1),
                "update_shift": In(signed(SHIFT_BITS)),
                "update_total": In(SUM_BITS),
                "update": In(1),
                "shift": In(RowPort(SHIFT_BITS)),
                **(copies if selection else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.row_slots
        m.submodules.octaves = octaves = memory.Memory(
            shape=OCTAVE_BITS + DROP_BITS, depth=depth, init=[]
        )
        m.submodules.shifts = shifts = memory.Memory(shape=SHIFT_BITS, depth=depth, init=[])
        m.submodules.totals = totals = memory.Memory(shape=SUM_BITS, depth=depth, init=[])

        # OCTAVE, LARGEST and SHIFT.
        octave_read, octave_write = octaves.read_port(), octaves.write_port()
        shift_read, shift_write = shifts.read_port(), shifts.write_port()
        m.d.comb += [
            octave_read.addr.eq(self.slot),
            octave_read.en.eq(1),
            Cat(self.octave, self.drop).eq(octave_read.data),
            octave_write.addr.eq(self.step_slot),
            octave_write.data.eq(Cat(self.step_octave, self.step_drop)),
            octave_write.en.eq(self.step),
            shift_read.addr.eq(self.shift.slot),
            shift_read.en.eq(1),
            self.shift.data.eq(shift_read.data),
            shift_write.addr.eq(self.step_slot),
            shift_write.data.eq(self.step_shift),
            shift_write.en.eq(self.step),
        ]

        # L.
        total_read, total_old = totals.read_port(), totals.read_port()
        total_write = totals.write_port()
        slots = [self.update_slot]
        for stage in range(1, 6):
            slot = Signal(10, name=f"slot_{stage}", reset_less=True)
            m.d.sync += slot.eq(slots[-1])
            slots.append(slot)
        # One shift to the right serves both directions: the value begins eight bits up, and a
        # guard bit below it becomes the rounding bit.
        old = Signal(SUM_BITS, reset_less=True)
        coarse = Signal(SUM_BITS + 1 + LEFT, reset_less=True)
        fine = Signal(3, reset_less=True)
        before = Signal(SUM_BITS + 1, reset_less=True)
        after = Signal(SUM_BITS, reset_less=True)
        right = Signal(SHIFT_BITS, reset_less=True)
        m.d.sync += [
            # Stage 1: what was summed before.
            old.eq(total_old.data),
            right.eq(self.update_shift + LEFT),
            # Stages 2 and 3: rescale it, by a multiple of 8 and by the rest.
            coarse.eq(Cat(Const(0, 1 + LEFT), old) >> Cat(Const(0, 3), right[3:])),
            fine.eq(right[:3]),
            before.eq(Mux(self.update_first, 0, coarse >> fine)),
            # Stage 4: round, and add the row.
            after.eq(before[1:] + before[0] + self.update_total),
        ]
        m.d.comb += [
            total_read.addr.eq(self.slot),
            total_read.en.eq(1),
            self.total.eq(total_read.data),
            total_old.addr.eq(self.update_slot),
            total_old.en.eq(1),
            # Stage 5: write.
            total_write.addr.eq(slots[5]),
            total_write.data.eq(after),
            total_write.en.eq(self.update),
        ]
        if self.selection:
            for name, port, value in (
                ("octave", octave_write, self.row_octave),
                ("total", total_write, self.row_total),
            ):
                copy = memory.Memory(shape=len(value), depth=2 * SELECTED, init=[])
                m.submodules[f"{name}_copy"] = copy
                read, write = copy.read_port(), copy.write_port()
                m.d.comb += [
                    read.addr.eq(self.row),
                    read.en.eq(1),
                    value.eq(read.data),
                    write.addr.eq(port.addr),
                    write.data.eq(port.data[: len(value)]),
                    write.en.eq(port.en & (port.addr[len(self.row) :] == 0)),
                ]
        return m
