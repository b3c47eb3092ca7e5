"""Random quantised decoders, whose integers are spread over their ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hw.isa import Function
from hw.vector.golden import Affine
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.operations import (
    Cache,
    DecoderState,
    QuantCachedAttention,
    QuantGated,
    QuantGraph,
    QuantHead,
    QuantInput,
    QuantLinear,
    QuantNorm,
    Tensor,
)

__all__ = ["Shape", "random_decoder", "random_shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    hidden: int
    heads: int
    kv_heads: int
    dim: int
    ffn: int
    layers: int
    vocabulary: int
    context: int
    prefix: int
    key_block: int
    gated: bool


def random_shape(rng: np.random.Generator, largest: int = 40) -> Shape:
    kv_heads = int(rng.integers(1, 4))
    return Shape(
        hidden=int(rng.integers(3, largest)),
        heads=kv_heads * int(rng.integers(1, 4)),
        kv_heads=kv_heads,
        dim=2 * int(rng.integers(2, 13)),
        ffn=int(rng.integers(3, 2 * largest)),
        layers=int(rng.integers(1, 3)),
        vocabulary=int(rng.integers(40, 150)),
        context=int(rng.integers(12, 60)),
        prefix=int(rng.integers(0, 3)),
        key_block=int(rng.choice([16, 32])),
        gated=bool(rng.integers(2)),
    )


class _Maker:
    """Operations one by one; `x` names the residual stream."""

    def __init__(self, shape: Shape, rng: np.random.Generator):
        self.shape, self.rng = shape, rng
        self.graph = QuantGraph(batch=1, tokens=1)
        self.graph.inputs = [FloatInput("ids", "tokens", (1, 1))]
        self.graph.decoder = DecoderState(
            context=shape.context, prefix=tuple(int(n) for n in rng.integers(0, 9, shape.prefix))
        )

    def tensor(self, name: str, bits: int, features: int) -> str:
        self.graph.tensors[name] = Tensor(
            name, bits, features, np.ones(1), np.zeros(1)
        )
        return name

    def weight(self, outputs: int, inputs: int) -> np.ndarray:
        return self.rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)

    def affine(self, count: int, reach: float, wanted: float) -> Affine:
        """From values of about `reach` to about `wanted`."""
        shift = np.full(count, 15 + max(0, round(math.log2(reach / wanted))), np.int64)
        mul = wanted / reach * 2.0**shift * self.rng.uniform(0.5, 1, count)
        mul = np.clip(np.rint(mul), -32768, 32767).astype(np.int64)
        offset = (1 << (shift - 1)) + self.rng.integers(-99, 99, count) * (1 << (shift - 6))
        return Affine(mul, offset, shift)

    def linear(self, x: str, outputs: int, wanted: float, **more) -> QuantLinear:
        features = self.graph.tensors[x].features
        reach = 127 * 32768 * 0.2 * math.sqrt(features)
        op = QuantLinear(
            x, self.weight(outputs, features), self.affine(outputs, reach, wanted), **more
        )
        self.graph.ops.append(op)
        return op

    def norm(self, x: str, out: str) -> str:
        features = self.graph.tensors[x].features
        self.tensor(out, 16, features)
        to8 = self.affine(features, 4096, 16000)
        self.graph.ops.append(
            QuantNorm(x, features, 1000, to8=to8, out8=out, rms=bool(self.rng.integers(4)))
        )
        return out

    def scalar(self, shift: int) -> Affine:
        return Affine(np.ones(1, np.int64), np.array([1 << (shift - 1)]), np.array([shift]))

    def attention(self, x: str, layer: int) -> str:
        s, state = self.shape, self.graph.decoder
        assert state is not None
        angle = self.rng.uniform(0, 6.28, (s.context, s.dim // 2))
        table = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(s.context, s.dim)
        turns = layer == 0 or self.rng.integers(2)
        if turns:
            state.angles[f"angles{layer}"] = np.rint(table * 2**14).astype(np.int16)
        angles = {"angles": f"angles{layer}", "second": self.scalar(14)} if turns else {}
        names = [f"{kind}{layer}" for kind in "qkv"]
        q, k, v = (
            self.tensor(name, bits, heads * s.dim)
            for name, bits, heads in zip(
                names, (16, 16, 8), (s.heads, s.kv_heads, s.kv_heads), strict=True
            )
        )
        self.linear(x, s.heads * s.dim, 20000, out8=q, **angles)
        self.linear(x, s.kv_heads * s.dim, 20000, out8=k, **angles)
        self.linear(x, s.kv_heads * s.dim, 100, out8=v)
        features = s.kv_heads * s.dim
        state.caches[f"cache{layer}"] = Cache(
            s.kv_heads,
            s.dim,
            self.rng.integers(-32768, 32640, (s.prefix, features)).astype(np.int16),
            self.rng.integers(-128, 128, (s.prefix, features)).astype(np.int8),
        )
        out = self.tensor(f"o{layer}", 16, s.heads * s.dim)
        # Scores reach about 2^(14 + 7 - 2) * sqrt(dim): a few octaves.
        shift = 9 + round(math.log2(math.sqrt(s.dim)))
        shifts = np.repeat(self.rng.integers(shift - 2, shift + 3, s.kv_heads), s.heads // s.kv_heads)
        self.graph.ops.append(
            QuantCachedAttention(
                q, k, v, f"cache{layer}", s.heads, s.kv_heads,
                tuple(int(n) for n in shifts), self.scalar(2), out,
                lead=int(self.rng.integers(2)), key_block=s.key_block,
            )  # fmt: skip
        )
        return out

    def ffn(self, x: str, layer: int) -> str:
        s = self.shape
        out = self.tensor(f"ffn{layer}", 16, s.ffn)
        features = self.graph.tensors[x].features
        if not s.gated:
            self.linear(
                x, s.ffn, 3000, out8=out, function=Function.GELU_TANH, second=self.scalar(1)
            )
            return out
        reach = 127 * 32768 * 0.2 * math.sqrt(features)
        self.graph.ops.append(
            QuantGated(
                x,
                self.weight(s.ffn, features),
                self.weight(s.ffn, features),
                self.affine(s.ffn, reach, 3000),
                self.affine(s.ffn, reach, 20000),
                self.scalar(12),
                out,
            )
        )
        return out

    def add(self, x: str, stream: str, out: str) -> str:
        self.tensor(out, 16, self.shape.hidden)
        self.linear(
            x, self.shape.hidden, 9000, residual=stream, out16=out,
            residual_shift=int(self.rng.integers(2)),
        )  # fmt: skip
        return out


def random_decoder(shape: Shape, rng: np.random.Generator) -> QuantGraph:
    """A decoder of this shape. Every operation is one that a quantised model has."""
    maker = _Maker(shape, rng)
    graph = maker.graph
    x = maker.tensor("x", 16, shape.hidden)
    table = rng.integers(-9000, 9000, (shape.vocabulary, shape.hidden)).astype(np.int16)
    constant = None
    if rng.integers(2):
        constant = rng.integers(-3000, 3000, (shape.context, shape.hidden)).astype(np.int16)
    graph.ops.append(QuantInput(x, "embedding", ("ids",), (table,), constant))
    for layer in range(shape.layers):
        attended = maker.attention(maker.norm(x, f"n{layer}"), layer)
        x = maker.add(attended, x, f"a{layer}")
        x = maker.add(maker.ffn(maker.norm(x, f"m{layer}"), layer), x, f"f{layer}")
    final = maker.norm(x, "final")
    weight = maker.weight(shape.vocabulary, shape.hidden)
    shift = 18 + rng.integers(0, 3, shape.vocabulary)
    graph.ops.append(QuantHead(final, weight, shift, "selection"))
    return graph
