"""How much attention each key had in a pass: softmax weights, summed up over all layers.

Behind `SOFTMAX` the weights of a key block lie in activation memory, a row for each query. A
product with a unit matrix adds them to words of the accumulator that stay for the whole pass: a
word for C keys, of each token and each query head of those that share keys. A block that is dropped
adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Memory, Opcode, Region
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import attention_shift, key_blocks
from sw.compiler.graph.operations import QuantCachedAttention, QuantGraph
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context
from sw.compiler.lower.params import Params
from sw.compiler.lower.unit_matrix import UnitMatrix
from sw.compiler.program.decoder_program import Sums
from sw.compiler.stream.layout import align

__all__ = ["AttentionSums", "find_sums", "has_room"]

SHARE = 1 / 2
"""Of the accumulator, and of the residual memory that the sums pass at the end."""


def find_sums(graph: QuantGraph, config: AcceleratorConfig) -> Sums | None:
    """Where sums lie, if keys of least attention go first. Raises `CompileError`."""
    assert graph.decoder is not None
    if not graph.decoder.recent:
        return None
    texts = [op for op in graph.ops if isinstance(op, QuantCachedAttention) and op.k is not None]
    shapes = {(op.heads // op.kv_heads, op.lead, op.key_block): op for op in texts}
    if len(shapes) > 1:
        places = " and ".join(op.place or op.out8 for op in shapes.values())
        raise CompileError(
            f"{places}: their attention has other blocks or heads, so there is no key of least "
            "attention: let the oldest go first"
        )
    ((heads, _, _), op) = shapes.popitem()
    slots, columns, width = graph.decoder.slots, [], 0
    for start, size in key_blocks(op, slots):
        keys = min(size, slots - start)
        columns.append(width + np.arange(keys))
        width += align(align(keys, config.rows), config.columns)
    sums = Sums(heads, width, np.concatenate(columns))
    if not has_room(sums, config, 1):
        raise CompileError(
            f"sums of the attention to {slots} keys take more than half of the accumulator, "
            f"{config.accumulator_words} words, or of the residual memory: take a smaller window"
        )
    return sums


def has_room(sums: Sums, config: AcceleratorConfig, tokens: int) -> bool:
    """Whether a pass of so many tokens can keep its sums."""
    values = sums.heads * tokens * sums.width
    return (
        values <= SHARE * config.accumulator_words * config.columns
        and values <= SHARE * config.residual_words * config.lanes
    )


class AttentionSums:
    """The sums of a pass, from zeros on."""

    def __init__(self, context: Context, sums: Sums):
        self.context, self.sums = context, sums
        self.rows = sums.heads * context.graph.tokens
        self.panels = sums.width // context.config.columns
        self.words = self.panels * self.rows
        self._unit = UnitMatrix(context)
        self._address = context.accumulator.take_high(self.words)
        self._clear()

    def _clear(self) -> None:
        """Whatever the rows hold, times 0."""
        context, c = self.context, self.context.config
        weights, rows = context.weight.take(c.rows), context.activation.take(self.rows)
        context.emitter.emit(
            Opcode.LOAD,
            region=Region.CONSTANT,
            queue=WEIGHTS_QUEUE,
            memory=Memory.WEIGHT,
            offset=context.constants.add(bytes(c.rows * c.weight_pitch)),
            words=c.rows,
            runs=1,
            address=weights,
            word_stride=1,
        )
        context.emitter.emit(
            Opcode.GEMM,
            rows=self.rows,
            k_tiles=1,
            n_tiles=self.panels,
            a_address=rows,
            w_address=weights,
            acc_address=self._address,
            acc_stride=self.rows,
        )
        context.weight.give_back(weights)
        context.activation.give_back(rows)

    def add(
        self,
        block: tuple[int, int],
        weights: int,
        rows: tuple[int, int],
        limit: Mapping[str, int],
    ) -> None:
        """Weights of a block (start, size) of keys, of rows (first, count) of all query heads and
        tokens. limit: fields that drop the block."""
        start, c = block[0], self.context.config
        keys = min(block[1], len(self.sums.columns) - start)
        panel = int(self.sums.columns[start]) // c.columns
        self._unit.product(
            weights,
            -(-keys // c.rows),
            rows[1],
            self._address + panel * self.rows + rows[0],
            self.rows,
            a_unsigned=1,
            accumulate=1,
            **limit,
        )

    def store(self) -> int:
        """Emit what gives the sums to the host. Their offset in IO."""
        context, c = self.context, self.context.config
        groups = self.panels * c.groups_per_column_panel
        shift = attention_shift(context.graph)
        half, one = np.array([(1 << shift) >> 1]), np.ones(1, np.int64)
        scale = Params.of_all(context, Memory.PARAM0, Affine(one, half, np.array([shift])))
        words = self.rows * groups
        residual, offset = context.residual.take(words), context.io.take(words * c.residual_pitch)
        context.emitter.emit(
            Opcode.VECTOR,
            rows=self.rows,
            groups=groups,
            acc_address=self._address,
            acc_stride=self.rows,
            param0=scale.get(0, 1),
            same_param0=1,
            res_dst_address=residual,
            res_stride=groups,
            write_residual=1,
        )
        context.emitter.emit(
            Opcode.STORE,
            region=Region.IO,
            memory=Memory.RESIDUAL,
            offset=offset,
            words=words,
            runs=1,
            address=residual,
            word_stride=1,
        )
        scale.done()
        context.residual.give_back(residual)
        context.accumulator.give_back(self._address)
        self._unit.free()
        return offset
