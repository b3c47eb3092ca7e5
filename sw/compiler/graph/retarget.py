"""One quantised graph for every sequence length: quantise at the longest, then cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatInput,
    QuantAttention,
    QuantGraph,
    QuantInput,
    QuantOp,
    QuantOutput,
)

__all__ = ["with_shape"]


def _resize(shape: tuple[int, ...], batch: int, tokens: int) -> tuple[int, ...]:
    """Replace the leading [batch, tokens] of a module's input or output."""
    return (batch, tokens, *shape[2:])


def with_shape(graph: QuantGraph, batch: int, tokens: int) -> QuantGraph:
    """The same computation on `batch` sequences of `tokens` tokens, sharing all weights.

    Positions (embedding indices, constants and score biases fixed in the graph) are cut to the
    first `tokens`. Raises `CompileError` if the graph was quantised for fewer tokens than that.
    """
    if batch < 1 or not 1 <= tokens <= graph.tokens:
        raise CompileError(
            f"{batch} sequences of {tokens} tokens: the graph was quantised for 1 to "
            f"{graph.tokens} tokens"
        )

    if graph.host is not None:
        raise CompileError(
            "its host computes masks, positions or results for exactly "
            f"{graph.batch} x {graph.tokens} tokens: quantise each length"
        )
    if any(tensor.tokens for tensor in graph.tensors.values()):
        raise CompileError("sequences of two lengths cannot be cut together: quantise each length")

    def cut(op: QuantOp) -> QuantOp:
        if isinstance(op, QuantAttention) and op.bias is not None:
            return replace(op, bias=op.bias[:, :tokens, :tokens])
        if not isinstance(op, QuantInput):
            return op
        source = tuple(s[:tokens] if isinstance(s, np.ndarray) else s for s in op.source)
        constant = None if op.constant is None else op.constant[:tokens]
        return replace(op, source=source, constant=constant)

    return QuantGraph(
        batch=batch,
        tokens=tokens,
        inputs=[
            FloatInput(i.name, i.kind, _resize(i.shape, batch, tokens), i.place)
            for i in graph.inputs
        ],
        tensors=graph.tensors,
        ops=[cut(op) for op in graph.ops],
        outputs=[QuantOutput(o.name, _resize(o.shape, batch, tokens)) for o in graph.outputs],
    )
