"""Lower the head of a language model: products in blocks, their sum of powers, the largest of them.

Logits stay in the accumulator; what a pass gives is a few words a row.
"""

from __future__ import annotations

import numpy as np

from hw.isa import SELECTED, Memory, Opcode, Region
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import HEAD_BLOCK, VALUE_FRACTION_BITS, HeadBlock, head_blocks
from sw.compiler.graph.operations import QuantHead
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context
from sw.compiler.lower.steps import Step
from sw.compiler.program.decoder_program import Register
from sw.compiler.stream.access import selection_words
from sw.compiler.stream.layout import Form, layout_of, pack_weights

__all__ = ["lower_head"]


def lower_head(context: Context, step: Step, rows: int) -> int:
    """Emit the head for the last `rows` rows of a pass, at most 8. Offset of the selection in IO.

    Of each row, it holds `selection_words` words of residual memory, see `hw.isa`, SELECT; first
    the rows of blocks with even numbers, then, for their sums, those of odd ones. The likeliest
    token of the last row goes to a register. A pass that only reads ends in front of the head.
    """
    (op,) = step.ops
    assert isinstance(op, QuantHead) and rows <= SELECTED
    c = context.config
    context.emitter.place(op.place)
    context.emitter.emit(Opcode.HALT, predicate=Register.READING)
    value = context.values[op.x]
    first_row = 2 * (value.rows - rows)
    if Form.A in value.chip:
        address, stride, taken = value.chip[Form.A] + first_row, value.stride, None
    else:
        panels, stride = value.layout.panels, 2 * rows
        address = taken = context.activation.take(panels * stride)
        context.move_panels(
            Opcode.LOAD, value, Form.A, (0, panels), (value.rows - rows, rows), address, stride
        )
    words = selection_words(c)
    blocks = head_blocks(op)
    if len(blocks) < 2:
        raise CompileError(
            f"{op.place or op.out}: a vocabulary needs more than {HEAD_BLOCK} tokens"
        )
    target = context.residual.take(2 * rows * words)
    for number, block in enumerate(blocks):
        turn, last = number % 2, {}
        if number + 2 >= len(blocks):
            place = target + turn * rows * words
            last = {"write_residual": 1, "res_address": place, "res_stride": words}
        if number + 1 == len(blocks):
            last["register"] = Register.TOKEN
        _block(context, op, block, rows, (address, stride), number, last)
    offset = context.io.take(2 * rows * words * c.residual_pitch)
    context.emitter.emit(
        Opcode.STORE,
        region=Region.IO,
        memory=Memory.RESIDUAL,
        offset=offset,
        words=2 * rows * words,
        runs=1,
        address=target,
        word_stride=1,
    )
    context.residual.give_back(target)
    if taken is not None:
        context.activation.give_back(taken)
    return offset


def _block(
    context: Context,
    op: QuantHead,
    block: HeadBlock,
    rows: int,
    x: tuple[int, int],
    number: int,
    last: dict[str, int],
) -> None:
    """Some outputs of the same scale: products, sum of powers, selection."""
    c, emit = context.config, context.emitter.emit
    count = len(block.tokens)
    layout = layout_of(c, count)
    weight = op.weight[np.asarray(block.tokens)]
    packed = pack_weights(c, weight, layout, context.values[op.x].layout)
    panels = layout.column_panels
    words = panels * packed.words
    weights = context.weight.take(words)
    emit(
        Opcode.LOAD,
        region=Region.CONSTANT,
        queue=WEIGHTS_QUEUE,
        memory=Memory.WEIGHT,
        offset=context.constants.add(packed.image),
        words=words,
        runs=1,
        address=weights,
        word_stride=1,
    )
    accumulator = context.accumulator.take(panels * rows)
    sums = {"acc_address": accumulator, "acc_stride": rows, "limit": count}
    sums["slot"] = SELECTED * (number % 2)
    emit(
        Opcode.GEMM,
        **sums,
        rows=rows,
        k_tiles=packed.tiles,
        n_tiles=panels,
        a_address=x[0],
        a_stride=x[1],
        w_address=weights,
        w_by_column=packed.form.by_column,
        w_k_stride=packed.form.words,
        w_n_stride=packed.words,
        row_max=1,
        wide=1,
    )
    context.weight.give_back(weights)
    groups = -(-count // c.lanes)
    emit(
        Opcode.SOFTMAX,
        **sums,
        rows=rows,
        groups=groups,
        score_shift=block.shift - 8,
        first=int(number < 2),
    )
    emit(
        Opcode.SELECT,
        **sums,
        rows=rows,
        groups=groups,
        base=block.base,
        score_shift=block.shift - VALUE_FRACTION_BITS,
        first=int(number == 0),
        **last,
    )
    context.accumulator.give_back(accumulator)
