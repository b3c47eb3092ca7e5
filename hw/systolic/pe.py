"""Two rows of one column: two multipliers that share a stage of the partial sum."""

from __future__ import annotations

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ACTIVATION_BITS", "WEIGHT_BITS", "ProcessingPair"]

ACTIVATION_BITS = 9
"""Signed INT8 activations and unsigned 8-bit softmax weights share one signed operand."""

WEIGHT_BITS = 8


class ProcessingPair(wiring.Component):
    """`o_psum = i_psum + a[0] * w[0] + a[1] * w[1]` with stationary, double-buffered weights.

    Number format: operands are signed integers; the sum has `psum_bits`, wide enough for a whole
    column (`AcceleratorConfig.psum_bits`), so nothing rounds or wraps.

    Latency: `latency` cycles from the activations to `o_psum`, 1 from `i_psum`. Throughput: one
    pair of products a cycle. Flow control: none, the array never stalls; whoever feeds it leaves
    bubbles, whose sums nobody takes.

    Weights: `capture_row[j]` stores `row_byte`, `capture_column` stores `column_bytes` into the
    shadow weights. `swap` makes the shadow weights active in the next cycle; a capture in the
    cycle of the swap already belongs to the next tile.

    No register here has a reset: weights are loaded before they are used, sums flow through.

    2:4 sparsity: a selector that takes each activation from four broadcast values by the
    weight's index belongs in front of the products, with its own register.

    Members
    -------
    a: two broadcast activations. row_byte: byte of this column. column_bytes: bytes of these rows.
    """

    latency = 2

    def __init__(self, psum_bits: int):
        super().__init__(
            {
                "a": In(signed(ACTIVATION_BITS)).array(2),
                "row_byte": In(signed(WEIGHT_BITS)),
                "column_bytes": In(signed(WEIGHT_BITS)).array(2),
                "capture_row": In(1).array(2),
                "capture_column": In(1),
                "swap": In(1),
                "i_psum": In(signed(psum_bits)),
                "o_psum": Out(signed(psum_bits)),
            }
        )
        self.o_psum = Signal(signed(psum_bits), reset_less=True)

    def elaborate(self, platform):
        m = Module()
        products = []
        for j in range(2):
            shadow = Signal(signed(WEIGHT_BITS), name=f"shadow_{j}", reset_less=True)
            active = Signal(signed(WEIGHT_BITS), name=f"active_{j}", reset_less=True)
            product = Signal(
                signed(ACTIVATION_BITS + WEIGHT_BITS), name=f"product_{j}", reset_less=True
            )
            with m.If(self.capture_column):
                m.d.sync += shadow.eq(self.column_bytes[j])
            with m.If(self.capture_row[j]):
                m.d.sync += shadow.eq(self.row_byte)
            with m.If(self.swap):
                m.d.sync += active.eq(shadow)
            # Stage 1: products, in the output register of a multiplier block.
            m.d.sync += product.eq(self.a[j] * active)
            products.append(product)
        # Stage 2: one addition chain a pair, so that two rows share a skew stage.
        m.d.sync += self.o_psum.eq(self.i_psum + products[0] + products[1])
        return m
