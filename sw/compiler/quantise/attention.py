"""INT8 operands of attention.

The softmax works on octaves: its score is `q . k * scale * log2(e)`. With one scale for each
head's Q and K, `sq * sk * scale * log2(e) = 2^-(score_shift + 8)` exactly, the integer scores
need a shift only. A constant vector in K adds the same to all scores of a query, so K's centre
is free; V's centre passes through the average unchanged; Q's must be 0. V's centre is its mean: it
stands for the keys whose weights round to 0 but count in the sum.

A constant bias of the scores is in octaves from the start. The same for all keys of a query changes
nothing, so each query's biases are centred; and where they are large, scores keep a smaller shift,
so that few digits hold them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hw.isa import SCORE_FRACTION_BITS
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatAttention
from sw.compiler.graph.score_bias import digit_count
from sw.compiler.quantise.ranges import LEVELS, Range, windows
from sw.compiler.quantise.stages import LinearStage

if TYPE_CHECKING:
    from sw.compiler.quantise.driver import Quantiser
    from sw.compiler.quantise.weights import QuantisedWeight

__all__ = ["bias_units", "operand_ranges", "score_shifts"]

MAX_SCORE_SHIFT = 31
MOST_DIGITS = 3
BIAS_DEPTH = 62
"""Octaves below a query's largest bias that are told apart: three digits hold them at a shift of 3.
Keys further down weigh nothing, unless a key mask hides all others: then they count as equal."""


def _attention_of(quantiser: Quantiser, name: str) -> FloatAttention:
    for op in quantiser.float_graph.ops:
        if isinstance(op, FloatAttention) and name in (op.q, op.k, op.v):
            return op
    raise AssertionError(name)


def operand_ranges(quantiser: Quantiser, stage: LinearStage, weight: QuantisedWeight) -> Range:
    """Declare Q, K or V's tensor with its range."""
    op = _attention_of(quantiser, stage.out)
    if stage.role == "v":
        data = quantiser.float_value(stage.out)[quantiser.seen]
        even = np.ones(len(data))
        low, high, _ = windows(
            data, even, 1 / np.maximum(data.var(axis=0), 1e-9), quantiser.options
        )
        centre = data.mean(axis=0, dtype=np.float64)
        half = np.maximum(np.maximum(high - centre, centre - low), 1e-6)
        chosen = Range(half / LEVELS, centre)
    else:
        chosen = _query_key(quantiser, op)[stage.role]
    return quantiser.add_narrow(stage.out, chosen, op.heads)


def _query_key(quantiser: Quantiser, op: FloatAttention) -> dict[str, Range]:
    """Ranges of Q and K: channels of a head equalised, their product a power of two."""
    q = quantiser.float_value(op.q)[quantiser.seen]
    k = quantiser.float_value(op.k)[quantiser.seen]
    even = np.ones(len(q))
    low, high, _ = windows(k, even, 1 / np.maximum(k.var(axis=0), 1e-9), quantiser.options)
    centre, k_half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    low, high, _ = windows(q, even, 1 / np.maximum(q.var(axis=0), 1e-9), quantiser.options)
    q_half = np.maximum(np.maximum(high, -low), 1e-6)
    by_head = (op.heads, -1)
    # q * k is unchanged by q / a, k * a; this `a` gives both the same spread over channels.
    balance = np.sqrt(q_half / k_half)
    reach = np.sqrt(q_half * k_half).reshape(by_head).max(axis=1)
    exponent = _exponents(op, reach / LEVELS, reach / LEVELS)
    # sq = sk = s with s^2 * scale * log2(e) = 2^-exponent
    step = np.sqrt(2.0**-exponent / (abs(op.scale) * math.log2(math.e)))
    step = np.repeat(step, len(q_half) // op.heads)
    sign = math.copysign(1.0, op.scale)
    return {
        "q": Range(sign * step * balance, np.zeros_like(centre)),
        "k": Range(step / balance, centre),
    }


def _exponents(op: FloatAttention, q_step: np.ndarray, k_step: np.ndarray) -> np.ndarray:
    """Octaves have units 2^-exponent of the integer scores; the steps are lower bounds."""
    exact = -np.log2(q_step * k_step * abs(op.scale) * math.log2(math.e))
    exponent = np.floor(exact)
    return np.clip(exponent, SCORE_FRACTION_BITS, SCORE_FRACTION_BITS + _most_shifts(op))


def bias_units(op: FloatAttention) -> np.ndarray | None:
    """The bias, INT16 [heads, tokens of q, tokens of k] in units of 2^-8 octaves.

    Raises `CompileError` where a query has no largest bias.
    """
    if op.bias is None:
        return None
    bias = op.bias * (math.log2(math.e) * 2.0**SCORE_FRACTION_BITS)
    seen = np.tril(np.ones(bias.shape[1:], bool)) if op.causal else np.ones(bias.shape[1:], bool)
    bias = np.where(seen, bias, -np.inf)
    top = bias.max(axis=2, keepdims=True)
    if not np.isfinite(top).all():
        raise CompileError(
            f"the constant added to the scores of the attention at {op.place} holds NaN or "
            "infinity, or hides all keys of a query: give finite values"
        )
    low = np.maximum(bias, top - BIAS_DEPTH * 2.0**SCORE_FRACTION_BITS)
    middle = (top + np.where(seen, low, top).min(axis=2, keepdims=True)) / 2
    units = np.where(seen, np.rint(low - middle), 0).astype(np.int16)
    return np.broadcast_to(units, (op.heads, *units.shape[1:]))


def _most_shifts(op: FloatAttention) -> np.ndarray | int:
    """Largest score shift of each head at which a few digits hold the bias."""
    bias = bias_units(op)
    if bias is None:
        return MAX_SCORE_SHIFT
    return np.array(
        [
            next(s for s in range(MAX_SCORE_SHIFT, -1, -1) if digit_count(reach, s) <= MOST_DIGITS)
            for reach in np.abs(bias).max(axis=(1, 2)).tolist()
        ]
    )


def score_shifts(quantiser: Quantiser, op: FloatAttention) -> tuple[int, ...]:
    """One shift for each head, from the tensors' scales."""
    q = quantiser.graph.tensors[f"{op.q}.8"].scale.reshape(op.heads, -1)[:, 0]
    k = quantiser.graph.tensors[f"{op.k}.8"].scale.reshape(op.heads, -1)[:, 0]
    exponent = -np.log2(q * k * op.scale * math.log2(math.e))
    return tuple(round(e) - SCORE_FRACTION_BITS for e in exponent)
