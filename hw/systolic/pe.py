"""Two rows of one column: two multipliers that share a stage of the partial sum."""

from __future__ import annotations

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import Multiplier
from hw.sparse.formats import KEPT, QUAD
from hw.sparse.select import INDEX_BITS, select

__all__ = ["ACTIVATION_BITS", "WEIGHT_BITS", "ProcessingPair"]

ACTIVATION_BITS = 9
"""Signed INT8 activations and unsigned 8-bit softmax weights share one signed operand."""

WEIGHT_BITS = 8


class ProcessingPair(wiring.Component):
    """`o_psum = i_psum + a[0] * w[0] + a[1] * w[1]` with stationary, double-buffered weights.

    With `sparse`, `a` has four inputs and each weight an index, stationary as well: the pair adds
    `a[index[0]] * w[0] + a[1 + index[1]] * w[1]`. Indices of 0 make it the dense pair.

    Activations and active weights are held by the multipliers' own registers.

    Number format: operands are signed integers; the sum has `psum_bits`, wide enough for a whole
    column (`AcceleratorConfig.psum_bits`), so nothing rounds or wraps.

    Latency: `latency` cycles from the activations to `o_psum`, 1 from `i_psum`. Throughput: one
    pair of products a cycle. Flow control: none, the array never stalls; whoever feeds it leaves
    bubbles, whose sums nobody takes.

    Weights: `capture_row[j]` stores `row_byte[j]`, `capture_column` stores `column_bytes` into the
    shadow weights. `swap` makes the shadow weights active in the next cycle; a capture in the
    cycle of the swap already belongs to the next tile. The selector decides as the activation
    enters, so `index_capture_row`, `index_capture_column` and `index_swap` are what
    `capture_row`, `capture_column` and `swap` will be one cycle later.

    No register here has a reset: weights are loaded before they are used, sums flow through.

    Members
    -------
    a: broadcast activations. row_byte: bytes of this column. column_bytes: bytes of these rows.
    row_index: indices of this column; a column's word has indices of 0.
    """

    def __init__(self, psum_bits: int, *, sparse: bool = False):
        self.sparse = sparse
        members = {
            "a": In(signed(ACTIVATION_BITS)).array(QUAD if sparse else KEPT),
            "row_byte": In(signed(WEIGHT_BITS)).array(2),
            "column_bytes": In(signed(WEIGHT_BITS)).array(2),
            "capture_row": In(1).array(2),
            "capture_column": In(1),
            "swap": In(1),
            "i_psum": In(signed(psum_bits)),
            "o_psum": Out(signed(psum_bits)),
        }
        if sparse:
            members |= {
                "row_index": In(unsigned(INDEX_BITS)).array(2),
                "index_capture_row": In(1).array(2),
                "index_capture_column": In(1),
                "index_swap": In(1),
            }
        super().__init__(members)
        self.o_psum = Signal(signed(psum_bits), reset_less=True)

    latency = Multiplier.latency + 1

    def elaborate(self, platform):
        m = Module()
        products = []
        for j in range(2):
            shadow = Signal(signed(WEIGHT_BITS), name=f"shadow_{j}", reset_less=True)
            multiplier = Multiplier(ACTIVATION_BITS, WEIGHT_BITS)
            m.submodules[f"multiplier_{j}"] = multiplier
            with m.If(self.capture_column):
                m.d.sync += shadow.eq(self.column_bytes[j])
            with m.If(self.capture_row[j]):
                m.d.sync += shadow.eq(self.row_byte[j])
            m.d.comb += [
                multiplier.a.eq(self._select(m, j) if self.sparse else self.a[j]),
                multiplier.b.eq(shadow),
                multiplier.a_enable.eq(1),
                multiplier.b_enable.eq(self.swap),
                multiplier.o_enable.eq(1),
            ]
            products.append(multiplier.o)
        # Behind the products: one addition chain a pair, so that two rows share a skew stage.
        m.d.sync += self.o_psum.eq(self.i_psum + products[0] + products[1])
        return m

    def _select(self, m: Module, j: int):
        """The input of weight j."""
        shadow = Signal(INDEX_BITS, name=f"shadow_index_{j}", reset_less=True)
        active = Signal(INDEX_BITS, name=f"active_index_{j}", reset_less=True)
        with m.If(self.index_capture_column):
            m.d.sync += shadow.eq(0)
        with m.If(self.index_capture_row[j]):
            m.d.sync += shadow.eq(self.row_index[j])
        with m.If(self.index_swap):
            m.d.sync += active.eq(shadow)
        return select([self.a[j + i] for i in range(3)], active)
