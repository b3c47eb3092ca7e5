"""Execute a quantised graph in integers, whole matrices at a time.

Bit for bit what the command stream computes: the functions are the golden ones of `hw/`, and
the attention takes its key blocks in the order and size the graph prescribes. Products run in
float32 BLAS, split so that every partial sum is an integer below 2^24 and therefore exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hw.isa import MASKED_SCORE, Function
from hw.numerics import Int, round_shift, saturate, scale_by_power, wrapped
from hw.softmax.golden import largest_drop, row_step, weights
from hw.vector.golden import Affine, activate, affine, middle, norm_row, reciprocal_row
from sw.compiler.errors import InputError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOp,
    Tensor,
    low_stage,
)
from sw.compiler.graph.rows import Feeds, Rows, as_array
from sw.compiler.graph.scaled import scaled_product

__all__ = [
    "encode_input",
    "exact_product",
    "feeds_of",
    "from_integers",
    "input_array",
    "named_inputs",
    "results_of",
    "run_reference",
    "run_reference_op",
    "run_reference_rows",
    "to_integers",
]

EXACT_TERMS = 1024
"""Terms of 2^14 (two signed bytes) whose sum float32 still holds exactly."""
EXACT_TERMS_UNSIGNED = 512

FIRST_STAGE_REACH = 1 << 17
"""The first stage gives signed values of 18 bits."""

CHUNK_SCORES = 1 << 21
"""Scores worked on at once: bounds the memory of many or long sequences."""

BLOCK_VALUES = 1 << 15
"""Values of some rows worked on at once, so that what comes and goes stays in a cache."""

PRODUCT_VALUES = 1 << 19
"""Results of one product: each call of BLAS brings the weights into an order of its own first."""


def exact_product(a: np.ndarray, b: np.ndarray, terms: int = EXACT_TERMS) -> Int:
    """`a @ b` of integers, exactly; `terms` products may be summed in float32."""
    total: Int | None = None
    for start in range(0, a.shape[-1], terms):
        left = a[..., start : start + terms].astype(np.float32)
        right = b[..., start : start + terms, :].astype(np.float32, copy=False)
        part = (left @ right).astype(np.int64)
        total = part if total is None else total + part
    assert total is not None
    return total


def _rows_of(graph: QuantGraph, name: str, rows: Rows) -> Rows:
    """The rows of a tensor, where those of the graph are `rows`."""
    tokens = graph.tensors[name].tokens
    return Rows.uniform(graph.batch, tokens) if tokens else rows


# --- host side --------------------------------------------------------------------------------


def to_integers(x: np.ndarray, tensor: Tensor) -> Int:
    """Quantise real values to a tensor's integers."""
    scaled = (np.asarray(x, dtype=np.float64) - tensor.centre) / tensor.scale
    return saturate(np.rint(scaled).astype(np.int64), tensor.bits)


def from_integers(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Real values (float32) of a tensor's integers."""
    return (x * tensor.scale + tensor.centre).astype(np.float32)


def named_inputs(
    graph: QuantGraph, inputs: Sequence[object] | Mapping[str, object]
) -> Mapping[str, object]:
    """Inputs by name, given so or in call order."""
    if isinstance(inputs, Mapping):
        return inputs
    if len(inputs) != len(graph.inputs):
        raise InputError(f"{len(graph.inputs)} inputs are needed, got {len(inputs)}")
    return {item.name: value for item, value in zip(graph.inputs, inputs, strict=True)}


def input_array(graph: QuantGraph, name: str, value: Any) -> np.ndarray:
    """An input, given whole or, of a graph with lengths, sequence by sequence."""
    if graph.lengths and isinstance(value, list | tuple):
        return graph.rows.join(value, name)
    return as_array(value)


def feeds_of(graph: QuantGraph, inputs: Sequence[object] | Mapping[str, object]) -> Feeds:
    """Inputs of the module, as given, one row for each token."""
    inputs = named_inputs(graph, inputs)
    arrays: Feeds = {}
    for item in graph.inputs:
        if item.name not in inputs:
            raise InputError(f"input {item.name!r} is missing")
        value = arrays[item.name] = input_array(graph, item.name, inputs[item.name])
        if tuple(value.shape) != tuple(item.shape):
            raise InputError(f"input {item.name!r} has shape {value.shape}, not {item.shape}")
        if item.kind == "float" and not np.isfinite(value).all():
            raise InputError(f"input {item.name!r} holds NaN or infinity")
    if graph.host is not None:
        arrays |= graph.host.before(arrays)
        for item in graph.host.feeds:
            if item.kind == "float" and not np.isfinite(arrays[item.name]).all():
                raise InputError(f"{item.name!r}, of the inputs, holds NaN or infinity")
    feeds: Feeds = {}
    for item in graph.feeds:
        value = arrays[item.name]
        if item.kind == "float":
            readers = (op for op in graph.ops if isinstance(op, QuantInput))
            found = {graph.rows_of(op.out).total for op in readers if item.name in op.source}
            rows = max(found, default=graph.rows.total)
            feeds[item.name] = value.reshape(rows, -1).astype(np.float32)
        elif item.kind != "host":
            flat = value.reshape(-1)
            feeds[item.name] = flat.astype(bool) if item.kind == "mask" else flat.astype(np.int64)
    return feeds


def results_of(
    graph: QuantGraph,
    inputs: Sequence[object] | Mapping[str, object],
    outputs: tuple[np.ndarray, ...],
) -> tuple:
    """The module's results, from its inputs and what the accelerator gives."""
    if graph.host is None:
        return outputs
    return graph.host.after(named_inputs(graph, inputs), outputs)


def encode_input(op: QuantInput, graph: QuantGraph, feeds: Feeds, rows: Rows) -> np.ndarray:
    """What the host writes for a `QuantInput`: integers, or the key mask as booleans."""
    if op.kind == "mask":
        assert isinstance(op.source[0], str)
        return feeds[op.source[0]].astype(bool)
    tensor = graph.tensors[op.out]
    rows = _rows_of(graph, op.out, rows)
    total = np.zeros((rows.total, tensor.features), dtype=np.int64)
    if op.kind == "float":
        assert isinstance(op.source[0], str)
        scaled = (feeds[op.source[0]].astype(np.float64) - tensor.centre) / tensor.scale
        total += np.rint(scaled).astype(np.int64)
    else:
        for table, index in zip(op.tables, op.source, strict=True):
            chosen = feeds[index] if isinstance(index, str) else index[rows.positions]
            if (chosen < 0).any() or (chosen >= len(table)).any():
                raise InputError(f"input {index!r}: an index is outside 0..{len(table) - 1}")
            total += table[chosen]
    if op.constant is not None:
        total += op.constant[rows.positions]
    return saturate(total, tensor.bits)


# --- device side ------------------------------------------------------------------------------


@functools.cache
def _results_of(function: Function) -> Int:
    """`activate` of every value that the first stage can give: looking it up is much faster."""
    return activate(np.arange(-FIRST_STAGE_REACH, FIRST_STAGE_REACH), function)


def _in_blocks(
    rows: int, width: int, work: Callable[[slice], Feeds], values: int = BLOCK_VALUES
) -> Feeds:
    """Results of all rows, a block at a time. work: those of some rows, `width` values each.
    values: of a block."""
    step = max(1, values // width)
    results: Feeds = {}
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        for name, part in work(block).items():
            if name not in results:
                results[name] = np.empty((rows, *part.shape[1:]), part.dtype)
            results[name][block] = part
    return results


def _finish(h: Int, op: QuantLinear | QuantElementwise, residual: Int | None) -> Feeds:
    """Function, residual add and the two results, from the first stage's value."""
    if op.function != Function.NONE:
        h = _results_of(op.function)[h + FIRST_STAGE_REACH]
    results: Feeds = {}
    if isinstance(op, QuantLinear) and residual is not None:
        h = saturate(saturate(h, 16) + round_shift(residual, op.residual_shift), 16)
    if op.out16 is not None:
        results[op.out16] = saturate(h, 16)
    if op.out8 is not None:
        results[op.out8] = saturate(h if op.second is None else affine(h, op.second), 8)
    if op.low8 is not None:
        assert op.second is not None
        results[op.low8] = wrapped(affine(h, low_stage(op.second)), 8)
    return results


def _norm(op: QuantNorm, x: Int) -> Feeds:
    p = norm_row(x.sum(axis=1), (x * x).sum(axis=1), op.features, op.epsilon)
    z = middle(x, Affine(p.mul[:, None], p.offset[:, None], p.shift[:, None]))
    results: Feeds = {}
    if op.out16 is not None:
        assert op.to16 is not None
        results[op.out16] = saturate(affine(z, op.to16), 16)
    if op.out8 is not None:
        assert op.to8 is not None
        results[op.out8] = saturate(affine(z, op.to8), 8)
    return results


def _attend(op: QuantAttention, q: Int, k: Int, v: Int, keys: np.ndarray | None) -> Int:
    """Online softmax over key blocks. q, k, v: [sequences, heads, tokens, dim] integers.

    keys: [sequences, tokens of k] boolean key mask. Returns the second stage's operand, units
    2^-9.
    """
    tokens = k.shape[2]
    shift = np.array(op.score_shift, dtype=np.int64)[None, :, None]
    octave = largest = np.zeros(q.shape[:3], dtype=np.int64)
    total = np.zeros(q.shape[:3], dtype=np.int64)
    output = np.zeros(q.shape, dtype=np.int64)
    query = np.arange(q.shape[2])[:, None]
    for start in range(0, tokens, op.key_block):
        block = slice(start, min(start + op.key_block, tokens))
        scores = exact_product(q, k[:, :, block].swapaxes(-1, -2))
        if op.bias is not None:
            scores += op.bias[:, : q.shape[2], block].astype(np.int64) << shift[0, ..., None]
        valid = np.ones(scores.shape, dtype=bool)
        if op.causal:
            valid &= np.arange(block.start, block.stop) <= query
        if keys is not None:
            valid &= keys[:, None, None, block]
        top = np.where(valid, scores, MASKED_SCORE).max(axis=-1)
        octave, largest, rescale = row_step(
            top, octave, largest, start == 0, shift, largest_drop(tokens)
        )
        p, fine = weights(scores, octave[..., None], shift[..., None], valid)  # pyright: ignore
        part = exact_product(p, v[:, :, block], EXACT_TERMS_UNSIGNED)
        if start == 0:
            total, output = fine.sum(axis=-1), part
        else:
            total = scale_by_power(total, rescale) + fine.sum(axis=-1)
            output = scale_by_power(output, rescale[..., None]) + part
    row = reciprocal_row(total)
    return middle(output, Affine(row.mul[..., None], row.offset[..., None], row.shift[..., None]))


def _attention(op: QuantAttention, graph: QuantGraph, values: Feeds, rows: Rows) -> Feeds:
    features = values[op.q].shape[1]
    middle_values = np.empty((len(values[op.q]), features), dtype=np.int64)
    query_rows, key_rows = (_rows_of(graph, name, rows).groups for name in (op.q, op.k))
    for (queries, asking), (keys, answering) in zip(query_rows, key_rows, strict=True):
        scores = op.heads * queries * min(keys, op.key_block)
        step = max(1, CHUNK_SCORES // scores)
        for start in range(0, len(asking), step):
            chosen, seen = asking[start : start + step], answering[start : start + step]

            def split(name: str, of: np.ndarray) -> Int:
                x = values[name][of.reshape(-1)]
                return x.reshape(*of.shape, op.heads, -1).swapaxes(1, 2)

            mask = None if op.mask is None else values[op.mask][seen].astype(bool)
            out = _attend(op, split(op.q, chosen), split(op.k, seen), split(op.v, seen), mask)
            middle_values[chosen.reshape(-1)] = out.swapaxes(1, 2).reshape(-1, features)
    return {op.out8: saturate(affine(middle_values, op.second), 8)}


def run_reference_op(op: QuantOp, graph: QuantGraph, values: Feeds, rows: Rows) -> Feeds:
    """Results of one operation by name; `values` has what it reads, in integers."""
    if isinstance(op, QuantInput):
        return {op.out: encode_input(op, graph, values, rows)}
    if isinstance(op, QuantLinear):
        x, weight = values[op.x], op.weight.T.astype(np.float32)
        residual = None if op.residual is None else values[op.residual]

        def products(rows: slice) -> Feeds:
            if op.multipliers is not None and op.format.scaled:
                acc = scaled_product(x[rows], op.weight, op.format, op.multipliers, False)
            else:
                acc = exact_product(x[rows], weight)
            added = None if residual is None else residual[rows]

            def results(block: slice) -> Feeds:
                h = middle(acc[block], op.first)
                return _finish(h, op, None if added is None else added[block])

            return _in_blocks(len(acc), weight.shape[1], results)

        return _in_blocks(len(x), weight.shape[1], products, PRODUCT_VALUES)
    if isinstance(op, QuantElementwise):
        x = values[op.x]
        return _in_blocks(len(x), x.shape[1], lambda b: _finish(middle(x[b], op.first), op, None))
    if isinstance(op, QuantNorm):
        x = values[op.x]
        return _in_blocks(len(x), x.shape[1], lambda block: _norm(op, x[block]))
    if not isinstance(op, QuantAttention):
        raise TypeError(f"{type(op).__name__} is a decoder's: see decoder.py")
    return _attention(op, graph, values, rows)


def run_reference_rows(graph: QuantGraph, feeds: Feeds, rows: Rows) -> Feeds:
    """Every integer value by name, for any sequences no longer than the graph's own."""
    values = dict(feeds)
    for op in graph.ops:
        values.update(run_reference_op(op, graph, values, rows))
    return values


def run_reference(
    graph: QuantGraph, inputs: Sequence[object] | Mapping[str, object]
) -> list[np.ndarray]:
    """Outputs as float32, for the module's inputs (numpy or torch) in call order or by name."""
    values = run_reference_rows(graph, feeds_of(graph, inputs), graph.rows)
    outputs = tuple(
        from_integers(values[item.name], graph.tensors[item.name]).reshape(item.shape)
        for item in graph.outputs
    )
    return list(results_of(graph, inputs, outputs))
