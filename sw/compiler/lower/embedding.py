"""Embedding rows of a decoder among the constants; registers name those of a pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Memory, Opcode, Region
from sw.compiler.graph.operations import QuantGraph, QuantInput
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, Context, Value
from sw.compiler.program.decoder_program import token_registers
from sw.compiler.stream.allocate import Constants
from sw.compiler.stream.layout import Form, layout_of, pack_tensor

__all__ = ["Embedding", "add_embedding", "take_embedding"]


@dataclass(frozen=True)
class Embedding:
    """Embedding rows in the constants: word (word of a row, machine index), `tokens` indices."""

    offset: int
    tokens: int


def add_embedding(
    constants: Constants, graph: QuantGraph, config: AcceleratorConfig, order: np.ndarray
) -> Embedding | None:
    """The rows of the tokens of each machine index, if nothing else is added to them."""
    (op,) = (op for op in graph.ops if isinstance(op, QuantInput))
    if len(op.tables) != 1 or op.constant is not None or len(op.tables[0]) != order.max() + 1:
        return None
    rows = np.where(order[:, None] >= 0, op.tables[0][np.maximum(order, 0)], 0)
    layout = layout_of(config, rows.shape[1])
    words = pack_tensor(config, rows.astype(np.int64), layout, Form.S)
    by_word = words.reshape(len(rows), layout.groups, -1).swapaxes(0, 1)
    return Embedding(constants.add(by_word.tobytes()), len(order))


def take_embedding(context: Context, value: Value, embedding: Embedding) -> None:
    """Put the rows of the tokens that registers name where the host would write them."""
    c, words = context.config, value.layout.groups
    tokens = context.graph.tokens
    address = context.residual.take(tokens * words)
    for row, register in enumerate(token_registers(tokens)):
        context.emitter.emit(
            Opcode.LOAD,
            region=Region.CONSTANT,
            queue=ACTIVATIONS_QUEUE,
            memory=Memory.RESIDUAL,
            offset=embedding.offset,
            words=1,
            runs=words,
            dram_stride=embedding.tokens * c.residual_pitch,
            address=address + row * words,
            run_stride=1,
            register=register,
        )
    context.emitter.emit(
        Opcode.STORE,
        region=Region.IO,
        memory=Memory.RESIDUAL,
        offset=value.dram[Form.S][1],
        words=tokens * words,
        runs=1,
        address=address,
        word_stride=1,
    )
    context.residual.give_back(address)
