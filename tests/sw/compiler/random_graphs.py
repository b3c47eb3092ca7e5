"""Small random quantised graphs: every operation, odd sizes, all weight formats, values that do not
saturate away."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Function
from hw.sparse.formats import DENSE, QUAD, WeightFormat
from hw.vector.golden import Affine
from sw.bench.workloads import random_weights
from sw.compiler.graph.operations import (
    FloatInput,
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOutput,
    Tensor,
)
from sw.compiler.graph.score_bias import digit_count

__all__ = ["Builder", "formats_of", "random_encoder", "random_inputs", "random_mixture"]


def formats_of(config: AcceleratorConfig) -> list[WeightFormat]:
    """Weight formats of a machine, with groups of one and of three tiles."""
    found = [DENSE]
    if config.sparse:
        found.append(WeightFormat(sparse=True))
    for sparse in [False, True] if config.sparse else [False]:
        if config.int4:
            reach = config.rows << sparse
            found += [WeightFormat(sparse, 4, group) for group in (0, reach, 3 * reach)]
    if config.scales:
        groups = (config.rows, 3 * config.rows)
        found += [WeightFormat(False, 4, group, 8, True, config.rows) for group in groups]
    return found


class Builder:
    """Builds a graph operation by operation; every method returns the result's name.

    formats: what linear layers draw theirs from.
    """

    def __init__(
        self, seed: int, batch: int, tokens: int, formats: Sequence[WeightFormat] = (DENSE,)
    ):
        self.random = np.random.default_rng(seed)
        self.formats = formats
        self.graph = QuantGraph(batch, tokens)

    def tensor(
        self, name: str, bits: int, features: int, heads: int = 0, like: str | None = None
    ) -> str:
        """like: a tensor with as many tokens, by default the graph's number."""
        tokens = self.graph.tensors[like].tokens if like else 0
        scale = np.full(features, 0.05) if bits == 8 else np.array(2.0**-9)
        self.graph.tensors[name] = Tensor(
            name, bits, features, scale, np.zeros(features if bits == 8 else 1), heads, tokens
        )
        return name

    def affine(self, features: int, gain: float, spread: float) -> Affine:
        """Records of about this gain, offset up to `spread` results."""
        shift = self.random.integers(8, 20, features)
        mul = np.rint(gain * self.random.uniform(0.5, 1.5, features) * 2.0**shift).astype(np.int64)
        mul = np.clip(mul * self.random.choice([-1, 1], features), -32767, 32767)
        offset = np.rint(self.random.uniform(-spread, spread, features) * 2.0**shift)
        offset = offset.astype(np.int64) + (1 << (shift - 1))
        return Affine(mul, offset, shift.astype(np.int64))

    def float_input(self, name: str, bits: int, features: int, tokens: int = 0) -> str:
        g = self.graph
        g.inputs.append(FloatInput(name, "float", (g.batch, tokens or g.tokens, features)))
        out = self.tensor(f"{name}.q", bits, features)
        g.tensors[out] = dataclasses.replace(g.tensors[out], tokens=tokens)
        g.ops.append(QuantInput(out, "float", (name,)))
        return out

    def embedding(self, features: int, words: int = 50) -> str:
        g = self.graph
        g.inputs.append(FloatInput("tokens", "tokens", (g.batch, g.tokens)))
        out = self.tensor("embedded", 16, features)
        tables = tuple(
            self.random.integers(-3000, 3000, (n, features)).astype(np.int16)
            for n in (words, g.tokens)
        )
        constant = self.random.integers(-50, 50, (g.tokens, features))
        positions = np.arange(g.tokens)
        g.ops.append(QuantInput(out, "embedding", ("tokens", positions), tables, constant))
        return out

    def mask(self, tokens: int = 0) -> str:
        g = self.graph
        g.inputs.append(FloatInput("mask", "mask", (g.batch, tokens or g.tokens)))
        g.ops.append(QuantInput("mask.q", "mask", ("mask",)))
        return "mask.q"

    def linear(
        self, x: str, features: int, name: str, *, residual: str | None = None,
        to16: bool = False, to8: bool = True, function: Function = Function.NONE, heads: int = 0,
        head: int = 0,
    ) -> tuple[str | None, str | None]:  # fmt: skip
        """(INT16 result, INT8 result). head: features of a head, if attention makes or reads x."""
        g, k = self.graph, self.graph.tensors[x].features
        weight, format, multipliers = self.weights(features, k, head)
        size = max(float(weight.std()), 1.0)
        first = self.affine(features, 400 / (74 * size * np.sqrt(k)), 100)
        op = QuantLinear(
            x,
            weight,
            first,
            function,
            residual,
            int(self.random.integers(0, 3)),
            self.affine(features, 0.1, 10) if to8 and self.random.random() < 0.8 else None,
            self.tensor(f"{name}.16", 16, features, like=x) if to16 else None,
            self.tensor(f"{name}.8", 8, features, heads, like=x) if to8 else None,
            place=name,
            format=format,
            multipliers=multipliers,
        )
        g.ops.append(op)
        return op.out16, op.out8

    def halve(self, name: str) -> str:
        """Let the operation before write low bytes beside the high ones, of values that reach
        beyond 16 bits; returns their name."""
        g, op = self.graph, self.graph.ops[-1]
        assert isinstance(op, QuantLinear | QuantElementwise) and op.out8 is not None
        features = g.tensors[op.out8].features
        second = self.affine(features, 0.25, 10)
        low = self.tensor(f"{name}.low", 8, features, like=op.out8)
        g.ops[-1] = dataclasses.replace(op, second=second, low8=low)
        return low

    def wide_linear(
        self, high: str, low: str, features: int, name: str, residual: str, *, to8: bool = False
    ) -> tuple[str, str | None]:
        """A linear of 16-bit inputs, in two passes of the same weights; results as `linear`."""
        partial, _ = self.linear(
            high, features, f"{name}.high", residual=residual, to16=True, to8=False
        )
        first = self.graph.ops[-1]
        result, narrow = self.linear(low, features, name, residual=partial, to16=True, to8=to8)
        second = self.graph.ops[-1]
        assert isinstance(first, QuantLinear) and isinstance(second, QuantLinear) and result
        same = {"weight": first.weight, "format": first.format, "multipliers": first.multipliers}
        self.graph.ops[-1] = dataclasses.replace(second, residual_shift=0, **same)
        return result, narrow

    def weights(
        self, n: int, k: int, head: int
    ) -> tuple[np.ndarray, WeightFormat, np.ndarray | None]:
        """Weights [n, k] in one of the formats that heads allow, and their multipliers."""
        fit = [
            f
            for f in self.formats
            if not (f.sparse and head % QUAD) and not (f.group and head % f.group)
        ]
        format = fit[int(self.random.integers(len(fit)))] if len(fit) > 1 else fit[0]
        if format == DENSE:
            return self.random.integers(-127, 128, (n, k)).astype(np.int8), format, None
        weight, multipliers = random_weights(self.random, n, k, format)
        return weight, format, multipliers

    def norm(
        self, x: str, name: str, *, to16: bool = True, to8: bool = True
    ) -> tuple[str | None, str | None]:
        g, features = self.graph, self.graph.tensors[x].features
        op = QuantNorm(
            x,
            features,
            int(self.random.integers(1, 1000)) * features,
            self.affine(features, 0.1, 100) if to16 else None,
            self.affine(features, 0.01, 10) if to8 else None,
            self.tensor(f"{name}.16", 16, features, like=x) if to16 else None,
            self.tensor(f"{name}.8", 8, features, like=x) if to8 else None,
            place=name,
        )
        g.ops.append(op)
        return op.out16, op.out8

    def elementwise(
        self, x: str, name: str, *, to16: bool = True, to8: bool = True
    ) -> tuple[str | None, str | None]:
        g, features = self.graph, self.graph.tensors[x].features
        op = QuantElementwise(
            x,
            self.affine(features, 1, 100),
            Function(int(self.random.integers(0, 4))),
            self.affine(features, 0.05, 10) if to8 and self.random.random() < 0.7 else None,
            self.tensor(f"{name}.16", 16, features, like=x) if to16 else None,
            self.tensor(f"{name}.8", 8, features, like=x) if to8 else None,
            place=name,
        )
        g.ops.append(op)
        return op.out16, op.out8

    def attention(
        self, q: str, k: str, v: str, heads: int, name: str, *, causal: bool = False,
        mask: str | None = None, key_block: int = 64, biased: bool = False,
    ) -> str:  # fmt: skip
        features = self.graph.tensors[q].features
        out = self.tensor(name, 8, features, like=q)
        shifts = tuple(int(s) for s in self.random.integers(5, 9, heads))
        self.graph.ops.append(
            QuantAttention(
                q,
                k,
                v,
                heads,
                shifts,
                self.affine(features, 0.005, 10),
                out,
                causal,
                mask,
                key_block,
                place=name,
                bias=self.bias(shifts, q, k) if biased else None,
            )
        )
        return out

    def bias(self, shifts: Sequence[int], q: str, k: str) -> np.ndarray:
        """Score biases of every head: none, or what one to four digits hold."""
        g, heads = self.graph, []
        for shift in shifts:
            digits = int(self.random.integers(0, 5))
            reach = next(r for r in range(8000, -1, -1) if digit_count(r, shift) <= max(digits, 1))
            reach = reach if digits else 0
            size = g.tokens_of(q), g.tokens_of(k)
            heads.append(self.random.integers(-reach, reach + 1, size))
        return np.array(heads, np.int16)

    def output(self, *names: str | None) -> None:
        g = self.graph
        for name in names:
            assert name is not None
            shape = (g.batch, g.tokens_of(name), g.tensors[name].features)
            g.outputs.append(QuantOutput(name, shape))


def random_encoder(
    seed: int = 0, *, batch: int = 2, tokens: int = 19, hidden: int = 100, heads: int = 5,
    ffn: int = 250, layers: int = 1, causal: bool = False, masked: bool = False,
    key_block: int = 64, biased: bool = False, formats: Sequence[WeightFormat] = (DENSE,),
) -> QuantGraph:  # fmt: skip
    """Embedding, norm, and post-norm transformer layers, every second with 16-bit inputs in its
    feed-forward network."""
    b = Builder(seed, batch, tokens, formats)
    x16, x8 = b.norm(b.embedding(hidden), "norm0")
    mask = b.mask() if masked else None
    for layer in range(layers):
        assert x8 is not None and x16 is not None
        q, k, v = (b.linear(x8, hidden, f"{layer}.{n}", heads=heads)[1] for n in "qkv")
        assert q and k and v
        attended = b.attention(
            q, k, v, heads, f"{layer}.attention", causal=causal, mask=mask, key_block=key_block,
            biased=biased,
        )  # fmt: skip
        s, _ = b.linear(
            attended, hidden, f"{layer}.out", residual=x16, to16=True, to8=False,
            head=hidden // heads,
        )  # fmt: skip
        assert s
        x16, x8 = b.norm(s, f"{layer}.norm1")
        assert x8
        _, h = b.linear(x8, ffn, f"{layer}.up", function=Function.GELU_ERF)
        assert h and x16
        if (layer + seed) % 2:
            s, _ = b.wide_linear(h, b.halve(f"{layer}.up"), hidden, f"{layer}.down", x16)
        else:
            s, _ = b.linear(h, hidden, f"{layer}.down", residual=x16, to16=True, to8=False)
        assert s
        x16, x8 = b.norm(s, f"{layer}.norm2")
    b.output(x16, x8)
    return b.graph


def random_mixture(
    seed: int = 0, *, batch: int = 2, tokens: int = 11, formats: Sequence[WeightFormat] = (DENSE,)
) -> QuantGraph:
    """What encoders do not have: shared and reused operands, both results, no norm, 16-bit inputs
    from anywhere, keys of another number of tokens than the queries."""
    b = Builder(seed, batch, tokens, formats)
    a = b.float_input("a", 8, 24)
    r = b.float_input("r", 16, 30)
    r16, r8 = b.linear(a, 30, "first", residual=r, to16=True, to8=True, head=12)
    assert r16 and r8
    e16, e8 = b.elementwise(r16, "elementwise")
    assert e16 and e8
    n16, n8 = b.norm(e16, "norm", to16=bool(seed % 2))
    assert n8
    one = b.attention(a, a, a, 2, "self", key_block=8)  # an input, in all three forms
    two = b.attention(n8, r8, e8, 3, "cross", causal=True, key_block=4)  # through unit layers
    _, q = b.linear(a, 30, "q", heads=3, head=12)
    assert q
    three = b.attention(q, q, r8, 3, "shared", key_block=16)
    m = b.float_input("m", 16, 20, tokens=tokens + 7)
    m16, m8 = b.norm(m, "memory")
    assert m8
    (_, k), (_, v) = (b.linear(m8, 30, n, heads=3) for n in ("keys", "values"))
    assert k and v
    longer = b.attention(
        q, k, v, 3, "longer", mask=b.mask(tokens + 7), key_block=8, biased=bool(seed % 2)
    )
    shorter = b.attention(k, q, q, 3, "shorter", key_block=4)
    _, four = b.linear(two, 17, "odd", function=Function.RELU, head=10)
    s16, s8 = b.linear(one, 30, "sum", residual=e16, to16=True, to8=True, head=12)
    _, n2 = b.norm(s16 or "", "prenorm", to16=False)
    b.linear(n8, 12, "dead", to16=True, head=10)
    w16, w8 = b.elementwise(r16, "bytes", to16=bool(seed % 2))
    low = b.halve("bytes")
    assert w8
    wide, wide8 = b.wide_linear(w8, low, 13, "wide", b.float_input("s", 16, 13), to8=True)
    b.output(low, wide, wide8, *([w16] if w16 else []))
    _, u8 = b.linear(n8, 9, "up", to16=True, function=Function.RELU)
    u16 = b.halve("up")
    assert u8
    b.output(u8, b.wide_linear(u8, u16, 30, "again", e16)[0])
    outputs = [r16, e8, n8, one, two, three, four, s16, s8, n2, q, longer, shorter, m16]
    b.output(*outputs, *([n16] if n16 else []))
    return b.graph


def random_inputs(graph: QuantGraph, seed: int = 0) -> list[np.ndarray]:
    """Inputs for any of these graphs."""
    random = np.random.default_rng(seed)
    values: list[np.ndarray] = []
    for item in graph.inputs:
        if item.kind == "tokens":
            values.append(random.integers(0, 50, item.shape))
        elif item.kind == "mask" and graph.lengths:
            seen = [np.arange(n) < random.integers(1, n + 1) for n in graph.lengths]
            values.append(np.concatenate(seen).astype(np.int64))
        elif item.kind == "mask":
            lengths = random.integers(1, item.shape[1] + 1, (graph.batch, 1))
            values.append((np.arange(item.shape[1]) < lengths).astype(np.int64))
        else:
            values.append(random.normal(0, 3, item.shape).astype(np.float32))
    return values
