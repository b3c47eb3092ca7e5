"""Benchmark workloads as quantised graphs with random weights: GEMM, attention, encoder.

The values are random but every stage keeps its range in use (INT8 results with a standard
deviation of about 32), so that comparing with golden byte by byte means something. Cycles do
not depend on values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hw.isa import SCORE_FRACTION_BITS, Function
from hw.sparse.formats import (
    DENSE,
    KEPT,
    LARGEST_MULTIPLIER,
    WeightFormat,
    quads,
    scaled_weights,
)
from hw.vector.golden import MUL_BITS, Affine
from sw.compiler.graph.operations import (
    FloatInput,
    QuantAttention,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOutput,
    Tensor,
)
from sw.compiler.graph.score_bias import digit_count

__all__ = ["attention", "encoder", "gemm", "random_weights", "requantise"]

STD8 = 32.0
"""Standard deviation of INT8 activations."""
STD_WEIGHT = 40.0
STD_INT4 = 2.5
STD16 = 2000.0
"""Standard deviation of the INT16 residual stream."""


def requantise(factor: float | np.ndarray, n: int, bias: np.ndarray | float = 0.0) -> Affine:
    """`round(x * factor + bias)` for n channels: 15-bit `mul`, rounding folded into `offset`."""
    factor = np.broadcast_to(np.asarray(factor, dtype=np.float64), (n,))
    bias = np.broadcast_to(np.asarray(bias, dtype=np.float64), (n,))
    exponent = np.floor(np.log2(np.abs(factor)))
    shift = (MUL_BITS - 2 - exponent).astype(np.int64)
    mul = np.rint(factor * np.exp2(shift)).astype(np.int64)
    over = mul >= 1 << (MUL_BITS - 1)
    mul, shift = np.where(over, mul >> 1, mul), np.where(over, shift - 1, shift)
    half = np.left_shift(np.int64(1), np.maximum(shift - 1, 0)) * (shift > 0)
    offset = np.rint(bias * np.exp2(shift)).astype(np.int64) + half
    return Affine(mul, offset, shift)


def random_weights(
    rng: np.random.Generator, n: int, k: int, format: WeightFormat
) -> tuple[np.ndarray, np.ndarray | None]:
    """INT8 weights [n, k] that the format can hold, and the multipliers of INT4 groups; of scaled
    ones values, scales and offsets."""
    values = rng.normal(0, STD_WEIGHT, (n, k))
    if format.sparse:
        size = np.abs(quads(values))
        kept = np.argsort(np.argsort(-size, axis=2), axis=2) < KEPT
        values = values * kept.reshape(n, -1)[:, :k]
    if format.bits == 8:
        return np.clip(np.rint(values), -128, 127).astype(np.int8), None
    values = np.clip(np.rint(values / STD_WEIGHT * STD_INT4), -8, 7)
    if not format.group:
        return values.astype(np.int8), None
    groups = (n, -(-k // format.group))
    if format.scaled:
        scales, offsets = rng.integers(0, 256, groups), rng.integers(-20, 21, groups)
        return values.astype(np.int8), np.stack([scales, offsets], axis=2)
    multipliers = rng.integers(1, LARGEST_MULTIPLIER + 1, groups)
    each = np.repeat(multipliers, format.group, axis=1)[:, :k]
    return (values * each).astype(np.int8), multipliers


def _unit8(name: str, features: int, heads: int = 0, tokens: int = 0) -> Tensor:
    return Tensor(name, 8, features, np.full(features, 1 / STD8), np.zeros(features), heads, tokens)


def _unit16(name: str, features: int) -> Tensor:
    return Tensor(name, 16, features, np.asarray(1 / STD16), np.zeros(features))


def _linear(
    rng: np.random.Generator,
    n: int,
    k: int,
    format: WeightFormat,
    std: float,
    bias: float,
) -> dict[str, Any]:
    """Fields of a linear layer with this standard deviation of its result and its bias."""
    weight, multipliers = random_weights(rng, n, k, format)
    worth = weight
    if format.scaled and multipliers is not None:
        worth = scaled_weights(weight, format, multipliers)
    size = math.sqrt(max(float(np.mean(np.square(worth, dtype=np.float64))), 1e-3))
    first = requantise(std / (math.sqrt(k) * STD8 * size), n, rng.normal(0, bias, n))
    return {"weight": weight, "first": first, "format": format, "multipliers": multipliers}


def gemm(m: int, k: int, n: int, seed: int = 0, format: WeightFormat = DENSE) -> QuantGraph:
    """[m, k] x [k, n] with requantisation of the result to INT8."""
    rng = np.random.default_rng(seed)
    graph = QuantGraph(batch=1, tokens=m, inputs=[FloatInput("x", "float", (1, m, k))])
    graph.tensors = {t.name: t for t in (_unit8("x8", k), _unit8("y8", n))}
    graph.ops = [
        QuantInput("x8", "float", ("x",)),
        QuantLinear("x8", **_linear(rng, n, k, format, STD8, 4), out8="y8", place="gemm"),
    ]
    graph.outputs = [QuantOutput("y8", (1, m, n))]
    return graph


def _score_shift(dim: int) -> int:
    """Scores with a standard deviation of about two octaves."""
    octave = math.sqrt(dim) * STD8 * STD8 / 2
    return max(round(math.log2(octave)) - SCORE_FRACTION_BITS, 0)


def _relative_bias(heads: int, queries: int, keys: int, shift: int, digits: int) -> np.ndarray:
    """Random for each distance of query and key, as large as so many digits hold."""
    reach = next(r for r in range(8000, -1, -1) if digit_count(r, shift) <= digits)
    values = np.random.default_rng(0).integers(-reach, reach + 1, (heads, queries + keys))
    values[:, queries] = reach
    distance = np.arange(keys) - np.arange(queries)[:, None]
    return values[:, distance + queries].astype(np.int16)


def attention(
    heads: int,
    seq: int,
    dim: int,
    causal: bool = False,
    queries: int | None = None,
    bias: int = 0,
) -> QuantGraph:
    """softmax(q k^T) v for `heads` heads; q, k and v come from memory.

    queries: as many as there are keys (`seq`) by default. bias: digits of a constant bias of the
    scores, 0 for none.
    """
    features = heads * dim
    tokens = {"q": queries or seq, "k": seq, "v": seq}
    inputs = [FloatInput(n, "float", (1, count, features)) for n, count in tokens.items()]
    graph = QuantGraph(batch=1, tokens=tokens["q"], inputs=inputs)
    for n, count in tokens.items():
        graph.tensors[f"{n}8"] = _unit8(f"{n}8", features, heads, count)
    graph.tensors["y8"] = _unit8("y8", features)
    second = requantise(2.0**-9 * 2, features)
    shift = _score_shift(dim)
    graph.ops = [QuantInput(f"{n}8", "float", (n,)) for n in tokens]
    graph.ops.append(
        QuantAttention(
            "q8",
            "k8",
            "v8",
            heads,
            (shift,) * heads,
            second,
            "y8",
            causal=causal,
            place="attention",
            bias=_relative_bias(heads, tokens["q"], seq, shift, bias) if bias else None,
        )
    )
    graph.outputs = [QuantOutput("y8", (1, tokens["q"], features))]
    return graph


def encoder(
    hidden: int,
    heads: int,
    ffn: int,
    seq: int,
    layers: int = 1,
    batch: int = 1,
    seed: int = 0,
    format: WeightFormat = DENSE,
) -> QuantGraph:
    """Post-norm encoder layers (BERT): attention, residual, norm, GELU FFN, residual, norm.

    format: of the weights of all linear layers.
    """
    rng = np.random.default_rng(seed)
    shape = (batch, seq, hidden)
    graph = QuantGraph(batch=batch, tokens=seq, inputs=[FloatInput("x", "float", shape)])

    def add(tensor: Tensor) -> str:
        graph.tensors[tensor.name] = tensor
        return tensor.name

    def linear(x: str, n: int, std: float) -> dict[str, Any]:
        return _linear(rng, n, graph.tensors[x].features, format, std, std / 8)

    x8, x16 = add(_unit8("x8", hidden)), add(_unit16("x16", hidden))
    graph.ops = [QuantInput(x8, "float", ("x",)), QuantInput(x16, "float", ("x",))]
    to16 = requantise(STD16 / 4096, hidden)
    to8 = requantise(STD8 / 4096, hidden)
    for layer in range(layers):
        p = f"layer{layer}."
        for name in "qkv":
            out = add(_unit8(p + name, hidden, heads))
            fields = linear(x8, hidden, STD8)
            graph.ops.append(QuantLinear(x8, **fields, out8=out, place=p + name))
        context = add(_unit8(p + "context", hidden))
        graph.ops.append(
            QuantAttention(
                p + "q",
                p + "k",
                p + "v",
                heads,
                (_score_shift(hidden // heads),) * heads,
                requantise(2.0**-9 * 2, hidden),
                context,
                place=p + "attention",
            )
        )
        for block, inner in (("attention", context), ("ffn", "")):
            if block == "ffn":
                inner = add(_unit8(p + "hidden", ffn))
                fields = linear(x8, ffn, 1024.0)
                second = requantise(STD8 / 1024, ffn)
                graph.ops.append(
                    QuantLinear(
                        x8,
                        **fields,
                        function=Function.GELU_ERF,
                        second=second,
                        out8=inner,
                        place=p + "ffn1",
                    )
                )
            fields = linear(inner, hidden, STD16)
            total = add(_unit16(p + block + ".sum", hidden))
            graph.ops.append(
                QuantLinear(inner, **fields, residual=x16, out16=total, place=p + block + ".out")
            )
            x16 = add(_unit16(p + block + ".norm16", hidden))
            x8 = add(_unit8(p + block + ".norm8", hidden))
            graph.ops.append(
                QuantNorm(total, hidden, 1, to16, to8, x16, x8, place=p + block + ".norm")
            )
    graph.outputs = [QuantOutput(x16, shape)]
    return graph
