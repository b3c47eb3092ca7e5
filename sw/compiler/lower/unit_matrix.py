"""Copies of words of activation memory in the accumulator: a product with a unit matrix."""

from __future__ import annotations

import math

import numpy as np

from hw.isa import Memory, Opcode, Region
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context
from sw.compiler.stream.layout import layout_of, pack_weights

__all__ = ["UnitMatrix"]

MOST_ROWS = (1 << 12) - 1
"""Of a GEMM."""


class UnitMatrix:
    """A unit matrix in weight memory, from the first product on to `free`."""

    def __init__(self, context: Context):
        self.context, c = context, context.config
        reach = math.lcm(c.rows, c.columns)
        layout = layout_of(c, reach)
        self._packed = pack_weights(c, np.eye(reach, dtype=np.int8), layout, layout)
        self._offset = context.constants.add(self._packed.image)
        self._panels, self._tiles = layout.panels, layout.column_panels
        self._address: int | None = None

    def free(self) -> None:
        if self._address is not None:
            self.context.weight.give_back(self._address)
            self._address = None

    def product(
        self,
        source: int,
        panels: int,
        rows: int,
        accumulator: int,
        stride: int | None = None,
        **fields: int,
    ) -> None:
        """Panels of `rows` rows of R values at `source`, one behind the other, as panels of C sums,
        `stride` words apart (None: `rows`). fields: more of the GEMM; `wide`: rows of 16 bits."""
        c, packed = self.context.config, self._packed
        stride, of_row = stride or rows, 1 + fields.get("wide", 0)
        if self._address is None:
            self._address = self._loaded()
        # Where a tile takes a panel to its place, panels are so many more rows.
        square = self._panels == self._tiles == 1 and stride == rows
        together = min(panels, MOST_ROWS // rows) if square else self._panels
        for first in range(0, panels, together):
            count = min(together, panels - first)
            shape = {"rows": count * rows, "k_tiles": 1, "n_tiles": 1}
            if not square:
                outputs = -(-count * c.rows // c.columns)
                shape = {"rows": rows, "k_tiles": count, "n_tiles": outputs}
            self.context.emitter.emit(
                Opcode.GEMM,
                **shape,
                a_address=source + of_row * first * rows,
                a_stride=of_row * rows,
                w_address=self._address,
                w_by_column=packed.form.by_column,
                w_k_stride=packed.form.words,
                w_n_stride=packed.words,
                acc_address=accumulator + first // self._panels * self._tiles * stride,
                acc_stride=stride,
                **fields,
            )

    def _loaded(self) -> int:
        words = self._tiles * self._packed.words
        address = self.context.weight.take_high(words)
        self.context.emitter.emit(
            Opcode.LOAD,
            region=Region.CONSTANT,
            queue=WEIGHTS_QUEUE,
            memory=Memory.WEIGHT,
            offset=self._offset,
            words=words,
            runs=1,
            address=address,
            word_stride=1,
        )
        return address
