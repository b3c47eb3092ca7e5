"""One quantised graph for every sequence length: quantise at the longest, then cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatGraph,
    QuantAttention,
    QuantGraph,
    QuantInput,
    QuantOp,
)

__all__ = ["check_lengths", "with_lengths", "with_shape"]


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
    _check_host(graph)
    return _cut(graph, batch, tokens, ())


def check_lengths(graph: FloatGraph | QuantGraph, lengths: Sequence[int]) -> None:
    """Raises `CompileError` for lengths that `with_lengths` does not take."""
    wrong = [length for length in lengths if not 1 <= length <= graph.tokens]
    if wrong or not lengths:
        raise CompileError(
            f"a sequence of {wrong[0]} tokens: the graph is for 1 to {graph.tokens} tokens"
            if wrong
            else "no lengths given: one for each sequence is needed"
        )
    _check_host(graph)


def _check_host(graph: FloatGraph | QuantGraph) -> None:
    if graph.host is not None:
        raise CompileError(
            "its host computes masks, positions or results for exactly "
            f"{graph.batch} x {graph.tokens} tokens: quantise each length"
        )


def with_lengths(graph: QuantGraph, lengths: Sequence[int]) -> QuantGraph:
    """The same computation on sequences of these lengths, one behind the other: what each gives by
    itself. Inputs and outputs are [rows, ...], without a batch.

    Raises `CompileError` as `with_shape`.
    """
    check_lengths(graph, lengths)
    return _cut(graph, len(lengths), max(lengths), tuple(lengths))


def _cut(graph: QuantGraph, batch: int, tokens: int, lengths: tuple[int, ...]) -> QuantGraph:
    if any(tensor.tokens for tensor in graph.tensors.values()):
        raise CompileError("sequences of two lengths cannot be cut together: quantise each length")
    by_batch = (graph.batch, graph.tokens)

    def resized(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Replace the leading [batch, tokens] of a module's input or output, or [tokens]."""
        if shape[:2] == by_batch and not graph.lengths:
            return (*((sum(lengths),) if lengths else (batch, tokens)), *shape[2:])
        if shape[:1] == (graph.rows.total,) and (graph.batch == 1 or graph.lengths):
            if lengths or batch == 1:
                return (sum(lengths) or tokens, *shape[1:])
        raise CompileError(
            f"{name!r} is {list(shape)}, not [batch, tokens, ...]: it cannot be cut to other "
            "lengths"
        )

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
        inputs=[replace(item, shape=resized(item.name, item.shape)) for item in graph.inputs],
        tensors=graph.tensors,
        ops=[cut(op) for op in graph.ops],
        outputs=[replace(item, shape=resized(item.name, item.shape)) for item in graph.outputs],
        lengths=lengths,
    )
