"""Attention: its INT8 operands, and the operation.

The softmax works on octaves: its score is `q . k * scale * log2(e)`. With one scale for each
head's Q and K, `sq * sk * scale * log2(e) = 2^-(score_shift + 8)` exactly, the integer scores
need a shift only. A constant vector in K adds the same to all scores of a query, so K's centre
is free; V's centre passes through the average unchanged; Q's must be 0. V's centre is its mean: it
stands for the keys whose weights round to 0 but count in the sum.
"""

from __future__ import annotations

import math

import numpy as np

from hw.isa import SCALE_FRACTION_BITS, SCORE_FRACTION_BITS
from sw.compiler.graph.operations import FloatAttention, QuantAttention
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.names import narrow_name
from sw.compiler.quantise.ranges import LEVELS, Range, windows
from sw.compiler.quantise.result_tensors import declare_narrow
from sw.compiler.quantise.score_bias import bias_units, most_score_shifts
from sw.compiler.quantise.stages import AttentionStage, LinearStage
from sw.compiler.quantise.state import State

__all__ = ["declare_operand", "quantise_attention"]


def _attention_of(state: State, name: str) -> FloatAttention:
    for op in state.float_graph.ops:
        if isinstance(op, FloatAttention) and name in (op.q, op.k, op.v):
            return op
    raise AssertionError(name)


def declare_operand(state: State, stage: LinearStage) -> None:
    """Declare Q, K or V's tensor with its range."""
    op = _attention_of(state, stage.out)
    if stage.role == "v":
        data = state.visible(stage.out)
        even = np.ones(len(data))
        low, high, _ = windows(data, even, 1 / np.maximum(data.var(axis=0), 1e-9), state.options)
        centre = data.mean(axis=0, dtype=np.float64)
        half = np.maximum(np.maximum(high - centre, centre - low), 1e-6)
        chosen = Range(half / LEVELS, centre)
    else:
        if op.name not in state.operands:
            state.operands[op.name] = _query_key(state, op)
        chosen = state.operands[op.name][stage.role]
    state.add_narrow(stage.out, chosen, op.heads)


def _query_key(state: State, op: FloatAttention) -> dict[str, Range]:
    """Ranges of Q and K: channels of a head equalised, their product a power of two."""
    q, k = state.visible(op.q), state.visible(op.k)
    even = np.ones(len(q))
    low, high, _ = windows(k, even, 1 / np.maximum(k.var(axis=0), 1e-9), state.options)
    centre, k_half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    low, high, _ = windows(q, even, 1 / np.maximum(q.var(axis=0), 1e-9), state.options)
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
    return np.clip(exponent, SCORE_FRACTION_BITS, SCORE_FRACTION_BITS + most_score_shifts(op))


def _score_shifts(state: State, op: FloatAttention) -> tuple[int, ...]:
    """One shift for each head, from the tensors' scales."""
    q = state.graph.tensors[narrow_name(op.q)].scale.reshape(op.heads, -1)[:, 0]
    k = state.graph.tensors[narrow_name(op.k)].scale.reshape(op.heads, -1)[:, 0]
    exponent = -np.log2(q * k * op.scale * math.log2(math.e))
    return tuple(round(e) - SCORE_FRACTION_BITS for e in exponent)


def quantise_attention(state: State, stage: AttentionStage) -> None:
    op, value = stage.op, stage.out
    v = state.graph.tensors[narrow_name(op.v)]
    chosen = declare_narrow(state, value)
    unit = v.scale * 2.0**-SCALE_FRACTION_BITS
    second = make_affine(unit / chosen.scale, (v.centre - chosen.zero) / chosen.scale, op.place)
    state.emit(
        QuantAttention(
            narrow_name(op.q),
            narrow_name(op.k),
            narrow_name(op.v),
            op.heads,
            _score_shifts(state, op),
            second,
            narrow_name(value),
            op.causal,
            op.mask,
            state.options.key_block,
            op.place,
            bias_units(op),
        )
    )
