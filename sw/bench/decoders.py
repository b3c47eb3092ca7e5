"""Quantised decoders with random weights, for benchmarks and tests.

Values are random but every stage keeps its range in use, so that comparing with golden byte by byte
means something. Cycles do not depend on values, only on shapes and positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hw.isa import Function
from hw.sparse.formats import DENSE, WeightFormat
from hw.vector.golden import Affine
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.operations import (
    Cache,
    DecoderState,
    QuantCachedAttention,
    QuantGated,
    QuantGraph,
    QuantHead,
    QuantHeadNorm,
    QuantInput,
    QuantLinear,
    QuantNorm,
    Tensor,
)

__all__ = ["DecoderShape", "decoder"]

STREAM = 9000
"""Reach of what is added to the residual stream."""
SPREAD = 0.2
"""Standard deviation of products' factors, of their largest."""


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder: as a Llama's, but for the options.

    prefix: tokens with which every sequence begins. lead: keys of the first block. gated: else a
    GELU. rms: else layer norms. turns: rotary positions. positions: learned ones. head_norms: of
    each head of q and k, as Qwen3 has them. weights: format of all linears but the head, INT8 where
    it is behind attentions whose heads are no whole tiles. norm_bits: of what linears read of
    norms, but for the head.
    """

    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    layers: int
    vocabulary: int
    context: int
    dim: int = 0
    prefix: int = 1
    lead: int = 1
    key_block: int = 64
    gated: bool = True
    rms: bool = True
    turns: bool = True
    positions: bool = False
    head_norms: bool = False
    weights: WeightFormat = DENSE
    norm_bits: int = 16

    @property
    def head_size(self) -> int:
        return self.dim or self.hidden // self.heads


class _Maker:
    """Operations one by one."""

    def __init__(self, shape: DecoderShape, rng: np.random.Generator):
        self.shape, self.rng = shape, rng
        self.graph = QuantGraph(batch=1, tokens=1)
        self.graph.inputs = [FloatInput("ids", "tokens", (1, 1))]
        prefix = tuple(int(n) for n in rng.integers(0, shape.vocabulary, shape.prefix))
        self.state = DecoderState(context=shape.context, prefix=prefix)
        self.graph.decoder = self.state
        self.attended: set[str] = set()

    def tensor(self, name: str, bits: int, features: int) -> str:
        self.graph.tensors[name] = Tensor(name, bits, features, np.ones(1), np.zeros(1))
        return name

    def features(self, name: str) -> int:
        return self.graph.tensors[name].features

    def weight(self, outputs: int, inputs: int) -> np.ndarray:
        return self.rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)

    def format(self, x: str) -> WeightFormat:
        """Format of the linears that read a tensor."""
        format = self.shape.weights
        if not format.scaled or x not in self.attended:
            return format
        whole = self.shape.head_size % format.tile == 0
        return replace(format, group=format.tile) if whole else DENSE

    def stored(self, outputs: int, x: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Weights of `format(x)` and their scales and offsets."""
        format, inputs = self.format(x), self.features(x)
        if not format.scaled:
            return self.weight(outputs, inputs), None
        values = self.rng.integers(-8, 8, (outputs, inputs)).astype(np.int8)
        groups = outputs, -(-inputs // format.group)
        scales, offsets = self.rng.integers(0, 256, groups), self.rng.integers(-40, 41, groups)
        return values, np.stack([scales, offsets], axis=2)

    def affine(self, count: int, reach: float, wanted: float) -> Affine:
        """From values of about `reach` to about `wanted`."""
        shift = np.full(count, 15 + max(0, round(math.log2(reach / wanted))), np.int64)
        mul = wanted / reach * 2.0**shift * self.rng.uniform(0.5, 1, count)
        mul = np.clip(np.rint(mul), -32768, 32767).astype(np.int64)
        offset = (1 << (shift - 1)) + self.rng.integers(-99, 99, count) * (1 << (shift - 6))
        return Affine(mul, offset, shift)

    def sums(self, x: str) -> float:
        """Reach of the products of features and weights. Where weights are scaled by up to 256,
        those of 16 bits come as their 256th."""
        scaled = self.format(x).scaled
        wide = scaled or self.graph.tensors[x].bits == 16
        largest = (8 if scaled else 127) * (32768 if wide else 128)
        return largest * SPREAD * math.sqrt(self.features(x))

    def scalar(self, shift: int) -> Affine:
        return Affine(np.ones(1, np.int64), np.array([1 << (shift - 1)]), np.array([shift]))

    def linear(self, x: str, outputs: int, wanted: float, **more) -> None:
        first = self.affine(outputs, self.sums(x), wanted)
        weight, multipliers = self.stored(outputs, x)
        self.graph.ops.append(
            QuantLinear(x, weight, first, format=self.format(x), multipliers=multipliers, **more)
        )

    def norm(self, x: str, out: str, bits: int = 16) -> str:
        features = self.features(x)
        self.tensor(out, bits, features)
        to8 = self.affine(features, 4096, 16000 if bits == 16 else 60)
        self.graph.ops.append(
            QuantNorm(x, features, 1000, to8=to8, out8=out, rms=self.shape.rms, place=out)
        )
        return out

    def head_norm(self, x: str, out: str, place: str, turn: dict) -> None:
        features, dim = self.features(out), self.shape.head_size
        sums = self.tensor(f"{out}.sums", 16, features)
        self.linear(x, features, 9000, out16=sums, place=place)
        epsilon = tuple(int(n) for n in self.rng.integers(0, 1 << 32, features // dim))
        gain = self.affine(features, 4096, 16000)
        self.graph.ops.append(
            QuantHeadNorm(sums, dim, epsilon, gain, out, place=place, rms=self.shape.rms, **turn)
        )

    def attention(self, x: str, layer: int) -> str:
        s, place = self.shape, f"layer.{layer}.attention"
        dim, features = s.head_size, s.kv_heads * s.head_size
        turn = {}
        if s.turns:
            angle = self.rng.uniform(0, 2 * math.pi, (s.context, dim // 2))
            table = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(s.context, dim)
            self.state.angles.setdefault("angles", np.rint(table * 2**14).astype(np.int16))
            turn = {"angles": "angles", "second": self.scalar(14)}
        q = self.tensor(f"q{layer}", 16, s.heads * dim)
        k = self.tensor(f"k{layer}", 16, features)
        v = self.tensor(f"v{layer}", 8, features)
        for out in (q, k):
            if s.head_norms:
                self.head_norm(x, out, place, turn)
            else:
                self.linear(x, self.features(out), 20000, out8=out, place=place, **turn)
        self.linear(x, features, 100, out8=v, place=place)
        self.state.caches[f"cache{layer}"] = Cache(
            s.kv_heads,
            dim,
            self.rng.integers(-32768, 32640, (s.prefix, features)).astype(np.int16),
            self.rng.integers(-128, 128, (s.prefix, features)).astype(np.int8),
        )
        out = self.tensor(f"o{layer}", 16, s.heads * dim)
        self.attended.add(out)
        # Scores reach some octaves, more or less by head.
        shift = 9 + round(math.log2(math.sqrt(dim)))
        shifts = np.repeat(
            self.rng.integers(shift - 2, shift + 3, s.kv_heads), s.heads // s.kv_heads
        )
        self.graph.ops.append(
            QuantCachedAttention(
                q,
                k,
                v,
                f"cache{layer}",
                s.heads,
                s.kv_heads,
                tuple(int(n) for n in shifts),
                self.scalar(2),
                out,
                lead=s.lead,
                key_block=s.key_block,
                place=place,
            )
        )
        return out

    def feed_forward(self, x: str, layer: int) -> str:
        s, place = self.shape, f"layer.{layer}.ffn"
        out = self.tensor(f"ffn{layer}", 16, s.ffn)
        if not s.gated:
            self.linear(
                x,
                s.ffn,
                3000,
                out8=out,
                function=Function.GELU_TANH,
                second=self.scalar(1),
                place=place,
            )
            return out
        gate, gate_multipliers = self.stored(s.ffn, x)
        up, up_multipliers = self.stored(s.ffn, x)
        self.graph.ops.append(
            QuantGated(
                x,
                gate,
                up,
                self.affine(s.ffn, self.sums(x), 3000),
                self.affine(s.ffn, self.sums(x), 20000),
                self.scalar(12),
                out,
                place=place,
                format=self.format(x),
                gate_multipliers=gate_multipliers,
                up_multipliers=up_multipliers,
            )
        )
        return out

    def add(self, x: str, stream: str, out: str) -> str:
        self.tensor(out, 16, self.shape.hidden)
        shift = int(self.rng.integers(2))
        self.linear(
            x,
            self.shape.hidden,
            STREAM,
            residual=stream,
            out16=out,
            residual_shift=shift,
            place=out,
        )
        return out


def decoder(shape: DecoderShape, seed: int = 0) -> QuantGraph:
    """A decoder of this shape. Every operation is one that a quantised model has."""
    rng = np.random.default_rng(seed)
    maker = _Maker(shape, rng)
    graph = maker.graph
    x = maker.tensor("x", 16, shape.hidden)
    table = rng.integers(-STREAM, STREAM, (shape.vocabulary, shape.hidden)).astype(np.int16)
    constant = None
    if shape.positions:
        constant = rng.integers(-3000, 3000, (shape.context, shape.hidden)).astype(np.int16)
    graph.ops.append(QuantInput(x, "embedding", ("ids",), (table,), constant))
    for layer in range(shape.layers):
        normed = maker.norm(x, f"layer.{layer}.norm1", shape.norm_bits)
        attended = maker.attention(normed, layer)
        x = maker.add(attended, x, f"layer.{layer}.add1")
        normed = maker.norm(x, f"layer.{layer}.norm2", shape.norm_bits)
        x = maker.add(maker.feed_forward(normed, layer), x, f"layer.{layer}.add2")
    final = maker.norm(x, "norm")
    weight = maker.weight(shape.vocabulary, shape.hidden)
    shift = 18 + rng.integers(0, 3, shape.vocabulary)
    graph.ops.append(QuantHead(final, weight, shift, "selection", place="head"))
    return graph
