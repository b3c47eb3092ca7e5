"""Row sums: a tree over the lanes, running over the groups of a row."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arithmetic import tree_sum
from hw.isa import SQUARES_BITS, SUM_BITS
from hw.softmax.exp2 import FINE_BITS

__all__ = ["RowSums"]


class RowSums(wiring.Component):
    """`total = sum(term)`, `squares = sum(square)` over the lanes and groups of a row so far; for
    softmax `total = sum(fine)`.

    Number format: term signed 16, square unsigned 31, fine unsigned 25 bits, units of 2^-25.
    total 42 bits (statistics: signed 32 of them), squares unsigned 44, wrapping (the compiler
    guarantees that they do not).

    Latency: `latency` cycles from the terms of the row's last group to the totals of the row.
    Throughput: a group a cycle. Flow control: none.

    Members
    -------
    fine, fine_valid: softmax: a group, `fine_lead` stages before its terms would come.
    term, square, i_valid: a group, stage 0. i_first, i_softmax: stage 1: it is the first one of
        its row, it is a softmax group.
    total, squares: stage 2, up to and including that group.
    """

    latency = 2
    fine_lead = 3

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "fine": In(FINE_BITS).array(lanes),
                "fine_valid": In(1),
                "term": In(signed(16)).array(lanes),
                "square": In(unsigned(31)).array(lanes),
                "i_valid": In(1),
                "i_first": In(1),
                "i_softmax": In(1),
                "total": Out(SUM_BITS),
                "squares": Out(SQUARES_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        growth = (self.lanes - 1).bit_length()
        # Stages -3 to 0: softmax values over the lanes, in two steps, and two stages to wait.
        pairs = [self.fine[v : v + 2] for v in range(0, self.lanes, 2)]
        sums = [Signal(FINE_BITS + 1, name=f"pair_{v}", reset_less=True) for v in range(len(pairs))]
        group_fine = Signal(FINE_BITS + growth, name="fine", reset_less=True)
        with m.If(self.fine_valid):
            m.d.sync += [total.eq(tree_sum(pair)) for total, pair in zip(sums, pairs, strict=True)]
        m.d.sync += group_fine.eq(tree_sum(sums))
        for stage in range(self.fine_lead - 1):
            moved = Signal.like(group_fine, name=f"fine_{stage}", reset_less=True)
            m.d.sync += moved.eq(group_fine)
            group_fine = moved
        # Stage 0: over the lanes.
        group_total = Signal(signed(16 + growth), reset_less=True)
        group_squares = Signal(31 + growth, reset_less=True)
        valid = Signal()
        m.d.sync += valid.eq(self.i_valid)
        with m.If(self.i_valid):
            m.d.sync += [
                group_total.eq(tree_sum(self.term[v] for v in range(self.lanes))),
                group_squares.eq(tree_sum(self.square[v] for v in range(self.lanes))),
            ]
        # Stage 1: over the groups.
        total = Signal(SUM_BITS, reset_less=True)
        squares = Signal(SQUARES_BITS, reset_less=True)
        addend = Signal(signed(SUM_BITS))
        m.d.comb += addend.eq(Mux(self.i_softmax, group_fine, group_total))
        with m.If(valid):
            with m.If(self.i_first):
                m.d.sync += [total.eq(addend), squares.eq(group_squares)]
            with m.Else():
                m.d.sync += [total.eq(total + addend), squares.eq(squares + group_squares)]
        m.d.comb += [self.total.eq(total), self.squares.eq(squares)]
        return m
