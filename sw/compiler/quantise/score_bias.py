"""A constant bias of attention scores, in the integers of the softmax.

The same added to all keys of a query changes nothing, so each query's biases are centred. Where
they are large, the scores get a smaller shift, so that few digits hold a bias.
"""

from __future__ import annotations

import math

import numpy as np

from hw.isa import SCORE_FRACTION_BITS
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatAttention
from sw.compiler.graph.score_bias import digit_count

__all__ = ["MOST_SCORE_SHIFT", "bias_units", "most_score_shifts"]

MOST_SCORE_SHIFT = 31
MOST_DIGITS = 3
DEPTH = 62 << SCORE_FRACTION_BITS
"""Below a query's largest bias, what is told apart: three digits hold it at a shift of 3. Keys
further down weigh nothing, unless a key mask hides all others: then they count as equal."""


def bias_units(op: FloatAttention) -> np.ndarray | None:
    """The bias, INT16 [heads, tokens of q, tokens of k] in units of 2^-8 octaves.

    Raises `CompileError` where a query has no largest bias.
    """
    if op.bias is None:
        return None
    seen = np.ones(op.bias.shape[1:], bool)
    seen = np.tril(seen) if op.causal else seen
    bias = np.where(seen, op.bias * (math.log2(math.e) * 2.0**SCORE_FRACTION_BITS), -np.inf)
    top = bias.max(axis=2, keepdims=True)
    if not np.isfinite(top).all():
        raise CompileError(
            f"the constant added to the scores of the attention at {op.place} holds NaN or "
            "infinity, or hides all keys of a query: give finite values"
        )
    bias = np.maximum(bias, top - DEPTH)
    middle = (top + np.where(seen, bias, top).min(axis=2, keepdims=True)) / 2
    units = np.where(seen, np.rint(bias - middle), 0).astype(np.int16)
    return np.repeat(units, op.heads // len(units), axis=0)


def most_score_shifts(op: FloatAttention) -> np.ndarray | int:
    """Largest score shift of each head at which a few digits hold the bias."""
    units = bias_units(op)
    if units is None:
        return MOST_SCORE_SHIFT
    shifts = range(MOST_SCORE_SHIFT, -1, -1)
    reaches = np.abs(units).max(axis=(1, 2)).tolist()
    return np.array(
        [next(s for s in shifts if digit_count(reach, s) <= MOST_DIGITS) for reach in reaches]
    )
