"""Row sums: a tree over the lanes, running over the groups of a row."""

from __future__ import annotations

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SQUARES_BITS", "SUM_BITS", "RowSums", "tree_sum"]

SUM_BITS = 32
SQUARES_BITS = 44


def tree_sum(values):
    """Balanced sum: `sum()` of many operands grows a bit a term and recurses."""
    values = list(values)
    while len(values) > 1:
        values = [
            values[i] + values[i + 1] if i + 1 < len(values) else values[i]
            for i in range(0, len(values), 2)
        ]
    return values[0]


class RowSums(wiring.Component):
    """`total = sum(term)`, `squares = sum(square)` over the lanes and groups of a row so far.

    Number format: term signed 16, square unsigned 31; total signed 32 and squares unsigned 44,
    wrapping (the compiler guarantees that they do not).

    Latency: `latency` cycles from the terms of the row's last group to the totals of the row.
    Throughput: a group a cycle. Flow control: none.

    Members
    -------
    term, square, i_valid: a group, stage 0. i_first: stage 1: it is the first one of its row.
    total, squares: stage 2, up to and including that group.
    """

    latency = 2

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "term": In(signed(16)).array(lanes),
                "square": In(unsigned(31)).array(lanes),
                "i_valid": In(1),
                "i_first": In(1),
                "total": Out(signed(SUM_BITS)),
                "squares": Out(unsigned(SQUARES_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        growth = (self.lanes - 1).bit_length()
        group_total = Signal(signed(16 + growth), reset_less=True)
        group_squares = Signal(31 + growth, reset_less=True)
        valid = Signal()
        m.d.sync += valid.eq(self.i_valid)
        # Stage 0: over the lanes.
        with m.If(self.i_valid):
            m.d.sync += [
                group_total.eq(tree_sum(self.term[v] for v in range(self.lanes))),
                group_squares.eq(tree_sum(self.square[v] for v in range(self.lanes))),
            ]
        # Stage 1: over the groups.
        total = Signal(signed(SUM_BITS), reset_less=True)
        squares = Signal(SQUARES_BITS, reset_less=True)
        with m.If(valid):
            with m.If(self.i_first):
                m.d.sync += [total.eq(group_total), squares.eq(group_squares)]
            with m.Else():
                m.d.sync += [
                    total.eq(total + group_total),
                    squares.eq(squares + group_squares),
                ]
        m.d.comb += [self.total.eq(total), self.squares.eq(squares)]
        return m
