"""The systolic array: R x C multipliers, skew, and the paths by which weights enter."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.systolic.pe import WEIGHT_BITS, ProcessingPair

__all__ = ["SystolicArray"]


def _register(m: Module, value: ValueLike, name: str) -> Any:
    """`value` one cycle later, without reset."""
    signal = Signal.like(value, name=name, reset_less=True)
    m.d.sync += signal.eq(value)
    return signal


class SystolicArray(wiring.Component):
    """Weight-stationary array: `psum[c] = sum over r of activation[r] * W[r][c]`, one row a cycle.

    Rows are built in pairs. Pair p works p cycles after pair 0, so a row of activations is
    skewed by r // 2, is broadcast over all columns, and the sums of all columns leave together.

    Latency: `latency` cycles from the cycle in which a row enters to that in which `psum` holds
    its sums. Throughput: a row a cycle, a weight word a cycle. Flow control: none; a cycle
    without a row computes a sum that nobody takes.

    Weights: a word by row is broadcast over the rows and captured by row `index`; a word by
    column travels down the array like an activation and is captured by column `index` of each
    pair. `swap`, given with the first row of a tile, travels with that row, and makes active the
    words that entered in earlier cycles. A word that enters with the swap belongs to the next
    tile already: by column it reaches pair p in the cycle of the swap, by row it reaches row r
    after r cycles, and the swap after r // 2. So tiles of W words may follow each other every W
    cycles without a drain.

    Parameters
    ----------
    rows, columns, psum_bits, weight_bytes: see `AcceleratorConfig`.

    Members
    -------
    activation: R bytes; `is_unsigned` says how to read them.
    swap: this row is the first of its tile.
    word: a weight word. word_valid: it enters; by_column, first_word: what it is. Words of a
        tile enter in order, with any gaps.
    psum: C sums.

    Source: the skew by row pairs and the broadcast are those of structured-sparse systolic
    arrays (two rows see four reduction values); the travelling capture replaces the shift chain
    of the classical weight-stationary array, whose smallest tile period is twice as long.
    """

    def __init__(self, *, rows: int, columns: int, psum_bits: int, weight_bytes: int):
        self.rows = rows
        self.columns = columns
        self.psum_bits = psum_bits
        super().__init__(
            {
                "activation": In(data.ArrayLayout(unsigned(8), rows)),
                "is_unsigned": In(1),
                "swap": In(1),
                "word": In(data.ArrayLayout(unsigned(WEIGHT_BITS), weight_bytes)),
                "word_valid": In(1),
                "by_column": In(1),
                "first_word": In(1),
                "psum": Out(signed(psum_bits)).array(columns),
            }
        )

    @property
    def latency(self) -> int:
        """Input register, skew to the last pair, multiply, add."""
        return 2 + (self.rows // 2 - 1) + ProcessingPair.latency

    def elaborate(self, platform):
        m = Module()
        pairs = self.rows // 2

        # Stage 1: input registers, which keep the decision to enter a row off the broadcasts.
        swap = _register(m, self.swap, "swap_0")
        operand = []
        for r in range(self.rows):
            byte = self.activation[r]
            sign = byte[7] & ~self.is_unsigned
            operand.append(_register(m, Cat(byte, sign).as_signed(), f"operand_{r}"))
        word = _register(m, self.word, "word_register")

        # One-hot position of the word in its tile. Only the word's own direction captures.
        row_position = Signal(self.rows, reset_less=True)
        column_position = Signal(self.columns, reset_less=True)
        row_capture = Signal(self.rows)
        column_capture = Signal(self.columns)
        next_row = Mux(self.first_word, 1, row_position << 1)
        next_column = Mux(self.first_word, 1, column_position << 1)
        m.d.sync += [row_capture.eq(0), column_capture.eq(0)]
        with m.If(self.word_valid):
            m.d.sync += [row_position.eq(next_row), column_position.eq(next_column)]
            with m.If(self.by_column):
                m.d.sync += column_capture.eq(next_column)
            with m.Else():
                m.d.sync += row_capture.eq(next_row)

        # Stage 2 + p: pair p. Everything that travels is delayed by one cycle a pair.
        column_bytes: list[Any] = [word[r].as_signed() for r in range(self.rows)]
        sums: list[ValueLike] = [0] * self.columns
        for p in range(pairs):
            top = 2 * p
            a = [_register(m, operand[top + j], f"a_{top + j}") for j in range(2)]
            for c in range(self.columns):
                pe = ProcessingPair(self.psum_bits)
                m.submodules[f"pe_{p}_{c}"] = pe
                m.d.comb += [
                    pe.a[0].eq(a[0]),
                    pe.a[1].eq(a[1]),
                    pe.row_byte.eq(word[c]),
                    pe.column_bytes[0].eq(column_bytes[top]),
                    pe.column_bytes[1].eq(column_bytes[top + 1]),
                    pe.capture_row[0].eq(row_capture[top]),
                    pe.capture_row[1].eq(row_capture[top + 1]),
                    pe.capture_column.eq(column_capture[c]),
                    pe.swap.eq(swap),
                    pe.i_psum.eq(sums[c]),
                ]
                sums[c] = pe.o_psum
            if p < pairs - 1:
                swap = _register(m, swap, f"swap_{p + 1}")
                column_capture = _register(m, column_capture, f"column_capture_{p + 1}")
                for r in range(top + 2, self.rows):
                    operand[r] = _register(m, operand[r], f"operand_{r}_{p + 1}")
                    column_bytes[r] = _register(m, column_bytes[r], f"column_byte_{r}_{p + 1}")
        for c in range(self.columns):
            m.d.comb += self.psum[c].eq(sums[c])
        return m
