"""Row statistics on chip: SUM and SQUARES."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.isa import SQUARES_BITS, TOTAL_BITS

__all__ = ["RowStatistics", "StatisticsEntry"]

StatisticsEntry = data.StructLayout(
    {"total": signed(TOTAL_BITS), "squares": unsigned(SQUARES_BITS)}
)


class RowStatistics(wiring.Component):
    """`SUM[slot] = (first ? 0 : SUM[slot]) + total`, the same for SQUARES, once per row.

    Latency: written three cycles after `update_slot`, visible from the fourth. Throughput: a row a
    cycle. Flow control: none. Collisions: a read of a slot that is being updated, and an update of
    a slot updated less than four cycles ago, must not matter: the compiler puts a wait between
    commands that share rows.

    Members
    -------
    slot, entry: the row engine reads; data one cycle after the slot.
    update_slot: stage 0 (address). update_first: stage 1. total, squares: stage 2.
    update: stage 3: write.
    """

    def __init__(self, row_slots: int):
        self.row_slots = row_slots
        super().__init__(
            {
                "slot": In(10),
                "entry": Out(StatisticsEntry),
                "update_slot": In(10),
                "update_first": In(1),
                "total": In(signed(TOTAL_BITS)),
                "squares": In(unsigned(SQUARES_BITS)),
                "update": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = mem = memory.Memory(
            shape=StatisticsEntry, depth=self.row_slots, init=[]
        )
        read, old, write = mem.read_port(), mem.read_port(), mem.write_port()
        slots = [self.update_slot]
        for stage in range(1, 4):
            slot = Signal(10, name=f"slot_{stage}", reset_less=True)
            m.d.sync += slot.eq(slots[-1])
            slots.append(slot)
        before = Signal(StatisticsEntry, reset_less=True)
        after = Signal(StatisticsEntry, reset_less=True)
        m.d.sync += [
            # Stage 1: what was there.
            before.total.eq(Mux(self.update_first, 0, old.data.total)),
            before.squares.eq(Mux(self.update_first, 0, old.data.squares)),
            # Stage 2: add the row.
            after.total.eq(before.total + self.total),
            after.squares.eq(before.squares + self.squares),
        ]
        m.d.comb += [
            read.addr.eq(self.slot),
            read.en.eq(1),
            self.entry.eq(read.data),
            old.addr.eq(self.update_slot),
            old.en.eq(1),
            # Stage 3: write.
            write.addr.eq(slots[3]),
            write.data.eq(after),
            write.en.eq(self.update),
        ]
        return m
