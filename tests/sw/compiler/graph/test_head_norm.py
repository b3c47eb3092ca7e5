"""Norms of heads in integers, against PyTorch: what happens to queries and keys behind linears."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch.nn import functional

from hw.isa import NORM_FRACTION_BITS
from hw.vector.golden import Affine
from sw.compiler.graph.decoder import Pass, SequenceState
from sw.compiler.graph.operations import DecoderState, QuantGraph, QuantHeadNorm, Tensor
from sw.compiler.graph.window import KeySlots
from sw.compiler.quantise.affines import make_affine

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
LEVELS = 32639
ANGLE_BITS = 14
REACH = 8.0
"""Of what a norm gives, in its own units."""
ERROR = 4.5
"""Units of 2^-15 of that reach, of which a norm's own 2^-12 are one; most of it is the root's."""


def integers(x, heads, gain, bias, epsilon, angle, rms) -> np.ndarray:
    """The operation on INT16 rows, as real numbers."""
    tokens, features = x.shape
    dim, unit = features // heads, REACH / LEVELS
    tiled = (np.tile(a, heads) for a in (gain, bias))
    scale, offset = (np.asarray(a, np.float64) / unit for a in tiled)
    turned = {}
    state = DecoderState(context=tokens)
    if angle is not None:
        table = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(tokens, dim)
        state.angles["angles"] = np.rint(table * 2**ANGLE_BITS).astype(np.int16)
        half = np.array([1 << (ANGLE_BITS - 1)])
        second = Affine(np.zeros(1, np.int64), half, np.array([ANGLE_BITS]))
        turned = {"angles": "angles", "second": second}
    op = QuantHeadNorm(
        "x",
        dim,
        (epsilon,) * heads,
        make_affine(scale * 2.0**-NORM_FRACTION_BITS, offset),
        "out",
        rms=rms,
        **turned,
    )
    graph = QuantGraph(1, tokens, decoder=state)
    graph.tensors["out"] = Tensor("out", 16, features, np.ones(1), np.zeros(1))
    work = Pass(graph, SequenceState(0, KeySlots(state)), np.zeros(tokens, np.int64))
    work.values["x"] = x
    work.execute(op)
    return work.values["out"] * unit


def reals(x, heads, gain, bias, epsilon, angle, rms) -> np.ndarray:
    """The same in float64."""
    tokens, features = x.shape
    dim = features // heads
    rows = torch.from_numpy(x).double().reshape(tokens, heads, dim)
    weight, eps = torch.from_numpy(gain), epsilon / dim**2
    if rms:
        y = functional.rms_norm(rows, (dim,), weight, eps) + torch.from_numpy(bias)
    else:
        y = functional.layer_norm(rows, (dim,), weight, torch.from_numpy(bias), eps)
    y = y.numpy()
    if angle is not None:
        turns = (y[..., ::2] + 1j * y[..., 1::2]) * np.exp(1j * angle)[:, None]
        y = np.stack([turns.real, turns.imag], axis=-1)
    return y.reshape(tokens, features)


@pytest.mark.parametrize("part", range(2))
def test_it_is_the_norm_and_the_rotation_of_pytorch(part: int) -> None:
    for seed in range(SEED + 100 * part, SEED + 100 * part + 40):
        rng = np.random.default_rng(seed)
        dim, heads, tokens = 2 * int(rng.integers(2, 128)), int(rng.integers(1, 5)), 9
        # Each head and row of another size, down to some hundred levels.
        size = 10 ** rng.uniform(2, 4, (tokens, heads, 1))
        x = np.rint(rng.normal(0, 1, (tokens, heads, dim)) * size).clip(-32768, 32767)
        x = x.reshape(tokens, -1).astype(np.int64)
        gain = rng.uniform(-1.2, 1.2, dim)
        rms, turns = bool(rng.integers(2)), bool(rng.integers(2))
        bias = np.zeros(dim) if rms else rng.uniform(-1, 1, dim)
        epsilon = int(10 ** rng.uniform(0, 9.6))
        angle = rng.uniform(0, 2 * np.pi, (tokens, dim // 2)) if turns else None
        given = (x, heads, gain, bias, epsilon, angle, rms)
        error = np.abs(integers(*given) - reals(*given)).max() / REACH * 2**15
        assert error < ERROR, f"seed {seed}: {heads} heads of {dim}, rms {rms}: {error}"
