"""Execute a float graph in float32: what quantisation is calibrated against, and a check of the
front end against the module itself."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as functional

from hw.isa import Function
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLayerNorm,
    FloatLinear,
    FloatMultiply,
    FloatOp,
    FloatQuantise,
    FloatRotate,
)
from sw.compiler.graph.rows import Feeds, Rows

__all__ = ["float_activation", "run_float", "run_float_op"]


def float_activation(x: np.ndarray, function: Function) -> np.ndarray:
    """ReLU, GELU or SiLU in float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    if function == Function.RELU:
        return functional.relu(tensor).numpy()
    if function == Function.SILU:
        return functional.silu(tensor).numpy()
    if function == Function.NONE:
        return x
    approximate = "tanh" if function == Function.GELU_TANH else "none"
    return functional.gelu(tensor, approximate=approximate).numpy()


def _attention(op: FloatAttention, values: Feeds, rows: Rows) -> np.ndarray:
    q, k, v = (torch.from_numpy(values[name]) for name in (op.q, op.k, op.v))
    result = torch.empty_like(q)
    dim = q.shape[1] // op.heads
    if op.memory:
        return _memory_attention(op, q, k, v, rows)
    for length, numbers in rows.groups:
        index = torch.from_numpy(numbers.reshape(-1))

        def split(x: torch.Tensor, index=index, length=length) -> torch.Tensor:
            found = x[index].reshape(-1, length, x.shape[1] // dim, dim).transpose(1, 2)
            return found.repeat_interleave(op.heads // found.shape[1], 1)

        seen = torch.ones(length, length, dtype=torch.bool)
        seen = (seen.tril() if op.causal else seen)[None, None]
        if op.mask is not None:
            keys = torch.from_numpy(values[op.mask].astype(bool))[index].reshape(-1, 1, 1, length)
            seen = seen & keys
        added = seen
        if op.bias is not None:
            corner = torch.from_numpy(op.bias[:, :length, :length])
            added = torch.where(seen, corner, -math.inf)
        out = functional.scaled_dot_product_attention(
            split(q), split(k), split(v), added, scale=op.scale
        )
        # A query without a visible key is NaN here; the accelerator gives 0.
        out = torch.where(seen.any(-1, keepdim=True), out, 0.0)
        result[index] = out.transpose(1, 2).reshape(len(index), -1)
    return result.numpy()


def _memory_attention(
    op: FloatAttention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: Rows
) -> np.ndarray:
    """Each sequence sees all rows of its own memory, which are as many for all."""
    dim, parts = q.shape[1] // op.heads, []
    memories = zip(k.chunk(len(rows.lengths)), v.chunk(len(rows.lengths)), strict=True)
    for text, both in zip(q.split(rows.lengths), memories, strict=True):
        queries, *seen = (x.reshape(len(x), -1, dim).transpose(0, 1) for x in (text, *both))
        keys, values = (x.repeat_interleave(op.heads // len(x), 0) for x in seen)
        out = functional.scaled_dot_product_attention(queries, keys, values, scale=op.scale)
        parts.append(out.transpose(0, 1).reshape(len(text), -1))
    return torch.cat(parts).numpy()


def _layer_norm(op: FloatLayerNorm, values: Feeds) -> np.ndarray:
    gain, bias = torch.from_numpy(op.gain), torch.from_numpy(op.bias)
    x = torch.from_numpy(values[op.x])
    heads = x.reshape(len(x), op.heads or 1, -1)
    if op.rms:
        found = functional.rms_norm(heads, gain.shape, gain, op.epsilon)
    else:
        found = functional.layer_norm(heads, gain.shape, gain, bias, op.epsilon)
    return found.reshape(x.shape).numpy()


def _rotate(op: FloatRotate, values: Feeds, rows: Rows) -> np.ndarray:
    x = values[op.x]
    result = x.reshape(len(x), op.heads, -1).copy()
    a, b = (result[..., places] for places in op.pairs.T)
    cosine, sine = (table[rows.positions][:, None] for table in (op.cosine, op.sine))
    result[..., op.pairs[:, 0]] = a * cosine - b * sine
    result[..., op.pairs[:, 1]] = b * cosine + a * sine
    return result.reshape(x.shape)


def run_float_op(op: FloatOp, values: Feeds, rows: Rows) -> np.ndarray:
    """Result of one operation; `values` has what it reads."""
    if isinstance(op, FloatInput):
        return values[op.name]
    if isinstance(op, FloatEmbedding):
        total = 0.0 if op.source is None else values[op.source]
        for table, index in zip(op.tables, op.indices, strict=True):
            chosen = values[index] if isinstance(index, str) else index[rows.positions]
            total = total + table[chosen]
        if op.constant is not None:
            total = total + op.constant[rows.positions]
        return np.asarray(total, dtype=np.float32)
    if isinstance(op, FloatLinear):
        bias = None if op.bias is None else torch.from_numpy(op.bias)
        x = torch.from_numpy(values[op.x])
        return functional.linear(x, torch.from_numpy(op.weight), bias).numpy()
    if isinstance(op, FloatLayerNorm):
        return _layer_norm(op, values)
    if isinstance(op, FloatActivation):
        return float_activation(values[op.x], op.function)
    if isinstance(op, FloatQuantise):
        integers = np.clip(np.rint(values[op.x] / op.scale) + op.zero, -128, op.highest)
        return (op.scale * (integers - op.zero)).astype(np.float32)
    if isinstance(op, FloatAdd):
        return values[op.x] + values[op.y]
    if isinstance(op, FloatMultiply):
        return values[op.x] * values[op.y]
    if isinstance(op, FloatRotate):
        return _rotate(op, values, rows)
    return _attention(op, values, rows)


def run_float(graph: FloatGraph, feeds: Feeds, rows: Rows) -> Feeds:
    """Every value of the graph by name."""
    values = dict(feeds)
    with torch.no_grad():
        for op in graph.ops:
            if isinstance(op, FloatInput):
                continue  # given, or only the host reads it
            values[op.name] = run_float_op(op, values, rows)
    return values
