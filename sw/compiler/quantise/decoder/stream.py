"""The residual stream, in units that are powers of two and only grow, and its norms."""

from __future__ import annotations

import math

import numpy as np

from hw.isa import NORM_FRACTION_BITS
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import VALUE_FRACTION_BITS
from sw.compiler.graph.operations import FloatLayerNorm, FloatLinear, QuantInput, QuantNorm
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.decoder.plan import EmbeddingStage, NormStage
from sw.compiler.quantise.decoder.state import STREAM_LEVELS, State
from sw.compiler.quantise.ranges import LEVELS

__all__ = ["EPSILON_LIMIT", "exponent_for", "quantise_embedding", "quantise_norm"]

EPSILON_LIMIT = (1 << 32) - 1
MANTISSAS = 32

SHARES = (1.0, 0.85, 0.7, 0.6, 0.5)
"""Of the largest value of the calibration, that 8 bits hold."""
ROWS = 4096
"""On which they are tried."""


def exponent_for(state: State, value: str, reach: float) -> int:
    """Binary logarithm of the smallest unit with which 16 bits reach so far, and with which a norm
    of the value has an epsilon of 32 bits."""
    exponent = math.ceil(math.log2(reach / STREAM_LEVELS))
    for op in state.float_graph.ops:
        if isinstance(op, FloatLayerNorm) and op.x == value:
            while op.epsilon * len(op.gain) ** 2 * 4.0**-exponent > EPSILON_LIMIT:
                exponent += 1
    return exponent


def quantise_embedding(state: State, stage: EmbeddingStage) -> None:
    """Rows of a table for tokens, and one for the position, that the host writes."""
    op, decoder = stage.op, state.graph.decoder
    assert decoder is not None
    (table, *others), (source, *places) = op.tables, op.indices
    positions = np.zeros((decoder.context, table.shape[1]))
    if op.constant is not None:
        positions = positions + op.constant[: decoder.context]
    for other, index in zip(others, places, strict=True):
        if isinstance(index, str):
            raise CompileError(f"the embedding at {op.place} has a second input, {index!r}")
        positions = positions + other[index[: decoder.context]]
    reach = max(float(np.abs(table).max() + np.abs(positions).max()), 1e-6)
    exponent = exponent_for(state, op.name, reach)
    out, unit = state.add_stream(op.name, exponent), 2.0**exponent
    constant = np.rint(positions / unit).astype(np.int16) if positions.any() else None
    integers = np.rint(table / unit).astype(np.int16)
    assert isinstance(source, str)
    state.emit(QuantInput(out, "embedding", (source,), (integers,), constant))


def _head_unit(unit: float, head: FloatLinear) -> float:
    """A unit, at least as large, for which weights of the head lose least.

    Their steps are powers of two times that unit, see `head.py`: the mean of their squares counts.
    """
    reach = np.maximum(np.abs(head.weight).max(axis=1), 1e-12).astype(np.float64) / LEVELS
    tried = unit * 2.0 ** (np.arange(MANTISSAS) / MANTISSAS)
    octaves = np.ceil(np.log2(reach[:, None] * tried * math.log2(math.e)))
    lost = ((2.0**octaves / tried) ** 2).mean(axis=0)
    lost[1:][octaves.max(axis=0)[1:] > -VALUE_FRACTION_BITS] = math.inf
    return float(tried[lost.argmin()])


def _byte_unit(state: State, norm: FloatLayerNorm) -> float | None:
    """Unit of 8-bit integers for what linears read of a norm, the best of some by what it changes
    of their results; None: all change them by more than the options allow."""
    x = state.seen_value(norm.name)[:ROWS].astype(np.float64)
    weight = np.concatenate([linear.weight for linear in state.readers(norm.name)])
    square = weight.astype(np.float64).T @ weight
    largest = max(float(np.abs(x).max()), 1e-6)
    total = max(float(np.sum((x @ square) * x)), 1e-12)
    lost: dict[float, float] = {}
    for share in SHARES:
        unit = largest * share / LEVELS
        error = np.clip(np.rint(x / unit), -LEVELS - 1, LEVELS) * unit - x
        lost[unit] = float(np.sum((error @ square) * error)) / total
    best = min(lost, key=lost.__getitem__)
    return best if lost[best] < state.options.loss else None


def quantise_norm(state: State, stage: NormStage) -> None:
    """A norm of the stream, for linears: 16 bits with the gain in, or 8."""
    op = stage.op
    byte = None
    if stage.reader is None and state.options.inputs == 8:
        byte = _byte_unit(state, op)
    unit = state.reach_unit(op.name) if byte is None else byte
    if stage.reader is not None:
        unit = _head_unit(unit, stage.reader)
    source = state.stream(op.x)
    epsilon = op.epsilon * len(op.gain) ** 2 * 4.0 ** -state.exponent(source)
    gain = op.gain.astype(np.float64) * 2.0**-NORM_FRACTION_BITS / unit
    state.emit(
        QuantNorm(
            source,
            len(op.gain),
            round(epsilon),
            to8=make_affine(gain, op.bias / unit, op.place),
            out8=state.add_operand(op.name, unit, bits=16 if byte is None else 8),
            place=op.place,
            rms=op.rms,
        )
    )
