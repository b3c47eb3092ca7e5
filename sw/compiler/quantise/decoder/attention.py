"""Attention over a cache: its operands, what the cache holds of the prefix, and the operation.

A score is `q . k * scale * log2(e)` octaves. With `sq * sk * 256 * scale * log2(e) = 2^-g`, for
units sq of a head's q and sk of its k, of which scores see the 256th, the integer scores need a
shift of g - 8 only. Values are centred at what they are at position 0, where many models look when
nothing else matters: it is exact then. The centre passes through the average unchanged.

Norms of heads work on 16 bits with a unit for each head, which they cancel.
"""

from __future__ import annotations

import math

import numpy as np

from hw.isa import NORM_FRACTION_BITS, SCALE_FRACTION_BITS, SCORE_FRACTION_BITS
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    Cache,
    FloatAttention,
    FloatLayerNorm,
    FloatLinear,
    FloatRotate,
    Memory,
    QuantCachedAttention,
    QuantHeadNorm,
    QuantLinear,
)
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.decoder.linear import finest_units, rounded_linear
from sw.compiler.quantise.decoder.plan import AttentionStage, MemoryStage, Projection
from sw.compiler.quantise.decoder.state import OPERAND_LEVELS, STREAM_LEVELS, State
from sw.compiler.quantise.decoder.stream import EPSILON_LIMIT
from sw.compiler.quantise.ranges import LEVELS

__all__ = ["quantise_attention", "quantise_memory"]

BYTE = 256
ANGLE_BITS = 14
MOST_SHIFT = 31
MOST_DIM = 256
"""Features of a head: sums of `q * high bytes of k` are below 2^31."""


def _order(rotate: FloatRotate | None, features: int, heads: int) -> np.ndarray:
    """Features of each head so that those that turn together follow each other."""
    dim = features // heads
    places = np.arange(dim)
    if rotate is not None:
        paired = rotate.pairs.ravel()
        places = np.concatenate([paired, np.setdiff1d(places, paired)])
    return (np.arange(heads)[:, None] * dim + places).ravel()


def _angles(state: State, rotate: FloatRotate, dim: int) -> str:
    """Name of the table of cosines and sines; equal ones are there once."""
    decoder = state.graph.decoder
    assert decoder is not None
    if dim % 2:
        raise CompileError(f"the rotation at {rotate.place} is of heads of {dim} features: odd")
    table = np.zeros((decoder.context, dim))
    table[:, ::2] = 1  # features behind the pairs stay
    turned = 2 * len(rotate.pairs)
    table[:, :turned:2] = rotate.cosine[: decoder.context]
    table[:, 1:turned:2] = rotate.sine[: decoder.context]
    integers = np.rint(table * 2**ANGLE_BITS)
    if np.abs(integers).max() >= 1 << 15:
        raise CompileError(f"the rotation at {rotate.place} stretches by 2 or more")
    integers = integers.astype(np.int16)
    for name, known in decoder.angles.items():
        if np.array_equal(known, integers):
            return name
    name = f"angles{len(decoder.angles)}"
    decoder.angles[name] = integers
    return name


def _reach(x: np.ndarray, heads: int, rotated: bool) -> np.ndarray:
    """Largest magnitude of each head; where pairs turn, of a pair at any angle."""
    by_head = np.abs(x.reshape(len(x), heads, -1)).astype(np.float64)
    if rotated:
        by_head = np.hypot(by_head[..., ::2], by_head[..., 1::2])
    return np.maximum(by_head.max(axis=(0, 2)), 1e-6)


class _Attention:
    """One attention's quantisation.

    Members
    -------
    kv_heads, dim: of it. order_q, order_k: features in the order of their tensors.
    """

    def __init__(
        self, state: State, op: FloatAttention, q_part: Projection, k_part: Projection | None
    ):
        self.state, self.op, self.q_part, self.k_part = state, op, q_part, k_part
        q, k = state.float_value(op.q).shape[1], state.float_value(op.k).shape[1]
        self.kv_heads = op.kv_heads or op.heads
        self.dim = q // op.heads
        if self.dim > MOST_DIM:
            raise CompileError(
                f"heads of the attention at {op.place} have {self.dim} features: the accumulator "
                f"holds scores of up to {MOST_DIM}"
            )
        rotate_k = None if k_part is None else k_part.rotate
        self.order_q = _order(q_part.rotate, q, op.heads)
        self.order_k = _order(rotate_k, k, self.kv_heads)

    def units(self) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
        """Units of q and k for each of their heads, and the shift of each head's scores, which is
        one for all that share keys."""
        op, margin = self.op, self.state.options.margin / OPERAND_LEVELS
        q = self.state.seen_value(op.q)[:, self.order_q]
        k = self.state.float_value(op.k)[:, self.order_k]  # the prefix is in the cache
        rotated = self.q_part.rotate is not None
        q_unit = _reach(q, op.heads, rotated) * margin
        k_unit = _reach(k, self.kv_heads, rotated) * margin
        octaves = np.repeat(k_unit, op.heads // self.kv_heads)
        octaves = octaves * BYTE * abs(op.scale) * math.log2(math.e)
        exponent = np.floor(-np.log2(q_unit * octaves)).reshape(self.kv_heads, -1).min(axis=1)
        exponent = np.repeat(exponent, op.heads // self.kv_heads).clip(
            SCORE_FRACTION_BITS, SCORE_FRACTION_BITS + MOST_SHIFT
        )
        q_unit = math.copysign(1, op.scale) * 2.0**-exponent / octaves
        return q_unit, k_unit, tuple(int(e) - SCORE_FRACTION_BITS for e in exponent)

    def project(self, kind: str, part: Projection, order: np.ndarray, unit: np.ndarray) -> str:
        """q or k: 16 bits, normalised and rotated as they are. unit: of each head."""
        state, name = self.state, f"{self.op.name}.{kind}"
        of_feature = np.repeat(unit, self.dim)
        second = angles = None
        if part.rotate is not None:
            angles = _angles(state, part.rotate, self.dim)
            shift = np.array([ANGLE_BITS])
            second = Affine(np.zeros_like(shift), np.int64(1) << (shift - 1), shift)
        out = state.add_tensor(name, 16, of_feature, np.zeros(len(order)))
        place, x = part.linear.place, part.linear.x
        if part.norm is None:
            rounded = rounded_linear(state, part.linear, of_feature, order=order)
            state.emit(
                QuantLinear(
                    x,
                    rounded.weight,
                    rounded.first,
                    second=second,
                    out8=out,
                    place=place,
                    angles=angles,
                    **rounded.stored,
                )
            )
            return out
        sums_unit = self.sums_unit(part, part.norm)
        of_sums = np.repeat(sums_unit, self.dim)
        rounded = rounded_linear(state, part.linear, of_sums, order=order)
        sums = state.add_tensor(f"{name}.sums", 16, of_sums, np.zeros(len(order)))
        weight, first = rounded.weight, rounded.first
        state.emit(QuantLinear(x, weight, first, out16=sums, place=place, **rounded.stored))
        epsilon = part.norm.epsilon * self.dim**2 / sums_unit**2
        state.emit(
            QuantHeadNorm(
                sums,
                self.dim,
                tuple(round(e) for e in epsilon),
                self.gain(part.norm, order, of_feature),
                out,
                angles,
                second,
                part.norm.place,
                part.norm.rms,
            )
        )
        return out

    def sums_unit(self, part: Projection, norm: FloatLayerNorm) -> np.ndarray:
        """Unit of each head in front of its norm, with which epsilon has 32 bits."""
        x = self.state.seen_value(part.linear.name)
        by_head = np.abs(x.reshape(len(x), -1, self.dim)).max(axis=(0, 2)).astype(np.float64)
        unit = np.maximum(by_head, 1e-6) * self.state.options.margin / STREAM_LEVELS
        return np.maximum(unit, self.dim * math.sqrt(norm.epsilon / EPSILON_LIMIT))

    def gain(self, norm: FloatLayerNorm, order: np.ndarray, unit: np.ndarray) -> Affine:
        """From a norm's result to integers, of features in `order`."""
        gain, bias = (a.astype(np.float64)[order % self.dim] for a in (norm.gain, norm.bias))
        return make_affine(gain * 2.0**-NORM_FRACTION_BITS / unit, bias / unit, norm.place)

    def values(self, linear: FloatLinear) -> str:
        """v: 8 bits, a unit and a centre for each feature; one unit for those that meet the same
        scale of a linear behind."""
        state, op = self.state, self.op
        v = state.seen_value(op.v)
        before = state.prefix_value(op.v)
        centre = before[0] if len(before) else v.mean(axis=0)
        half = np.abs(v - centre).max(axis=0) * state.options.value_margin
        shared = state.weight_format(op.name).group or 1
        unit = np.maximum(half.astype(np.float64) / LEVELS, finest_units(state, linear))
        unit = np.repeat(unit.reshape(-1, shared).max(axis=1), shared)
        rounded = rounded_linear(state, linear, unit, centre)
        weight, first = rounded.weight, rounded.first
        out = state.add_tensor(f"{op.name}.v", 8, unit, centre.astype(np.float64))
        state.emit(
            QuantLinear(linear.x, weight, first, out8=out, place=linear.place, **rounded.stored)
        )
        return out

    def quantise(self, k_part: Projection, v_part: FloatLinear) -> None:
        state, op, tensors = self.state, self.op, self.state.graph.tensors
        decoder = state.graph.decoder
        assert decoder is not None
        q_unit, k_unit, shifts = self.units()
        k = self.project("k", k_part, self.order_k, k_unit)
        v = self.values(v_part)
        q = self.project("q", self.q_part, self.order_q, q_unit)

        def prefix(value: str, tensor: str, order: np.ndarray | slice, limit: float) -> np.ndarray:
            real = (state.prefix_value(value)[:, order] - tensors[tensor].centre).astype(np.float64)
            return np.clip(np.rint(real / tensors[tensor].scale), -limit, limit)

        keys = prefix(op.k, k, self.order_k, OPERAND_LEVELS).astype(np.int16)
        values = prefix(op.v, v, slice(None), LEVELS).astype(np.int8)
        cache = f"{op.name}.cache"
        decoder.caches[cache] = Cache(self.kv_heads, self.dim, keys, values)
        lead = min(state.options.lead, max(1, len(decoder.prefix)))
        self.attend((q, k, v), cache, shifts, (tensors[v].scale, tensors[v].centre), lead)

    def quantise_memory(self) -> None:
        """Over keys and values that are there before the text is."""
        state, op, decoder = self.state, self.op, self.state.graph.decoder
        assert decoder is not None
        q_unit, k_unit, shifts = self.units()
        q = self.project("q", self.q_part, self.order_q, q_unit)
        keys, values = state.float_value(op.k), state.float_value(op.v)
        low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
        reach = np.maximum((high - low) / 2, 1e-6) * state.options.value_margin
        unit, centre = reach / LEVELS, (low + high) / 2
        memory = Memory(state.memory_rows, np.repeat(k_unit, self.dim), unit, centre)
        cache, none = f"{op.name}.memory", np.zeros((0, keys.shape[1]))
        decoder.caches[cache] = Cache(
            self.kv_heads, self.dim, none.astype(np.int16), none.astype(np.int8), memory
        )
        state.remember(cache, keys, values)
        self.attend((q, None, None), cache, shifts, (unit, centre), 0)

    def attend(
        self,
        operands: tuple[str, str | None, str | None],
        cache: str,
        shifts: tuple[int, ...],
        values: tuple[np.ndarray, np.ndarray],
        lead: int,
    ) -> None:
        """The operation. values: units and centres of v."""
        state, op = self.state, self.op

        def for_queries(x: np.ndarray) -> np.ndarray:
            """Features of v as each query head has them."""
            by_head = x.reshape(self.kv_heads, -1)
            return np.repeat(by_head, op.heads // self.kv_heads, axis=0).ravel()

        # O / l is at most 127 * 2^9: half of it fits 16 bits.
        unit = for_queries(values[0]) * 2.0 ** (1 - SCALE_FRACTION_BITS)
        half = Affine(*(np.array([1], np.int64) for _ in range(3)))
        state.emit(
            QuantCachedAttention(
                *operands,
                cache,
                op.heads,
                self.kv_heads,
                shifts,
                half,
                state.add_operand(op.name, unit, for_queries(values[1])),
                lead,
                state.options.key_block,
                op.place,
            )
        )


def quantise_attention(state: State, stage: AttentionStage) -> None:
    _Attention(state, stage.op, stage.q, stage.k).quantise(stage.k, stage.v)


def quantise_memory(state: State, stage: MemoryStage) -> None:
    _Attention(state, stage.op, stage.q, None).quantise_memory()
