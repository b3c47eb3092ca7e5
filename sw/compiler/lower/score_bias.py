"""The constant bias of attention scores: a product in the accumulator, before the scores are added.

Weights are the digits of a query block and key block, from the constants; activations are diagonals
of multipliers, one a digit. Strips of R queries reduce over their own R rows only, and a block pays
for no more digits than it uses.
"""

from __future__ import annotations

import numpy as np

from hw.isa import Memory, Opcode, Region
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.graph.score_bias import split_digits
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, WEIGHTS_QUEUE, Context
from sw.compiler.lower.shared import Shared
from sw.compiler.stream.layout import layout_of, pack_weights, tile_words

__all__ = ["ScoreBias"]

MOST_DIGITS = 16
"""Far more than the quantiser makes; they keep scores within 32 bits."""

Block = tuple[int, tuple[int, int], tuple[int, int]]
"""A head, and (first, count) of its queries and keys."""


class ScoreBias:
    """Bias of one attention operation.

    Members
    -------
    diagonals: multipliers on chip, of each sequence and head; `uses` is for the caller to count.
    """

    def __init__(self, context: Context, op: QuantAttention):
        assert op.bias is not None
        self.context, self.config = context, context.config
        self.heads = [split_digits(*each) for each in zip(op.bias, op.score_shift, strict=True)]
        self.digits = max(len(multipliers) for multipliers, _ in self.heads)
        if self.digits > MOST_DIGITS:
            raise CompileError(
                f"{op.place or op.out8}: a score bias of up to {np.abs(op.bias).max()} needs "
                f"{self.digits} digits at score shifts {op.score_shift}; at most {MOST_DIGITS}"
            )
        self.diagonals = Shared(context.activation)
        self._packed: dict[Block, tuple[int, int]] = {}

    def room(self, rows: int, keys: int) -> tuple[int, int]:
        """(activation, weight) words that blocks of this size need: two, with some caution one."""
        c = self.config
        digits = self.digits * (1 if self.context.caution else 2)
        tiles = -(-rows // c.rows) * layout_of(c, keys).column_panels
        return digits * c.rows, digits * tiles * tile_words(c)

    def used(self, block: Block) -> int:
        """Digits of a block that are not all 0."""
        head, (row, rows), (key, keys) = block
        _, digits = self.heads[head]
        found = digits[:, row : row + rows, key : key + keys].any(axis=(1, 2))
        return int(np.flatnonzero(found).max(initial=-1)) + 1

    def _pack(self, block: Block) -> tuple[int, int]:
        """(offset in the constants, words) of a block: tiles [strip][output][digit]."""
        head, (row, rows), (key, keys) = block
        c, used = self.config, self.used(block)
        part = self.heads[head][1][:used, row : row + rows, key : key + keys]
        part = np.pad(part, ((0, 0), (0, -rows % c.rows), (0, 0)))
        strips = (
            part.reshape(used, -1, c.rows, keys)
            .transpose(1, 3, 0, 2)
            .reshape(-1, keys, used * c.rows)
        )
        layouts = layout_of(c, keys), layout_of(c, used * c.rows)
        image = b"".join(pack_weights(c, strip, *layouts).image for strip in strips)
        return self.context.constants.add(image), len(image) // c.weight_pitch

    def _load(self, memory: Memory, queue: int, offset: int, words: int, address: int) -> None:
        self.context.emitter.emit(
            Opcode.LOAD,
            region=Region.CONSTANT,
            queue=queue,
            memory=memory,
            offset=offset,
            words=words,
            runs=1,
            address=address,
            word_stride=1,
        )

    def _diagonal(self, batch: int, head: int) -> int:
        """Address of a head's multipliers."""
        c, (multipliers, _) = self.config, self.heads[head]
        image = np.zeros((len(multipliers), c.rows, c.activation_pitch), np.uint8)
        image[:, :, : c.rows] = np.array(multipliers)[:, None, None] * np.eye(c.rows, dtype=int)
        offset, words = self.context.constants.add(image.tobytes()), len(multipliers) * c.rows

        def load(address: int) -> None:
            self._load(Memory.ACTIVATION, ACTIVATIONS_QUEUE, offset, words, address)

        return self.diagonals.get((batch, head), words, load)

    def emit(self, batch: int, block: Block, accumulator: int) -> bool:
        """Write a block's bias over its scores; false if it is all 0."""
        head, (_, rows), (_, keys) = block
        c, used = self.config, self.used(block)
        if not used:
            return False
        if block not in self._packed:
            self._packed[block] = self._pack(block)
        offset, words = self._packed[block]
        address = self.context.weight.take(words)
        self._load(Memory.WEIGHT, WEIGHTS_QUEUE, offset, words, address)
        diagonal = self._diagonal(batch, head)
        strips, tile = -(-rows // c.rows), tile_words(c)
        for strip in range(strips):
            first = strip * c.rows
            self.context.emitter.emit(
                Opcode.GEMM,
                rows=min(c.rows, rows - first),
                k_tiles=used,
                n_tiles=layout_of(c, keys).column_panels,
                a_address=diagonal,
                a_stride=c.rows,
                a_unsigned=1,
                w_address=address + strip * (words // strips),
                w_by_column=c.columns < c.rows,
                w_k_stride=tile,
                w_n_stride=used * tile,
                acc_address=accumulator + first,
                acc_stride=rows,
            )
        self.context.weight.give_back(address)
        self.diagonals.used((batch, head))
        return True
