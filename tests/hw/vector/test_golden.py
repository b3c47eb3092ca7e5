"""Integer functions of the vector unit against exact integers and against PyTorch in float."""

from functools import partial

import numpy as np
import pytest
import torch

from hw.isa import (
    GELU_FRACTION_BITS,
    NORM_FRACTION_BITS,
    SCALE_FRACTION_BITS,
    SUM_BITS,
    Function,
)
from hw.vector.golden import (
    GELU_TABLES,
    Affine,
    activate,
    affine,
    gated,
    middle,
    norm_row,
    pack_params,
    reciprocal_row,
    rotated,
    to_bytes,
    unpack_params,
)

SEED = 20240229
EVERY = np.arange(-(1 << 17), 1 << 17)


def test_affine_is_exact():
    for x in (-(1 << 31), -1, 0, 1, (1 << 31) - 1):
        for mul in (-(1 << 15), -1, 0, (1 << 15) - 1):
            for offset in (-(1 << 39), 0, (1 << 39) - 1):
                for shift in (0, 1, 31, 47, 48, 63):
                    p = Affine(*(np.array(v) for v in (mul, offset, shift)))
                    assert affine(np.array(x), p) == (x * mul + offset) >> shift


def test_params_round_trip():
    rng = np.random.default_rng(SEED)
    p = Affine(
        rng.integers(-(1 << 15), 1 << 15, 500),
        rng.integers(-(1 << 39), 1 << 39, 500),
        rng.integers(0, 64, 500),
    )
    q = unpack_params(pack_params(p))
    assert all((getattr(p, n) == getattr(q, n)).all() for n in ("mul", "offset", "shift"))


@pytest.mark.parametrize(
    "bad",
    [
        Affine(np.array(1 << 15), np.array(0), np.array(0)),
        Affine(np.array(0), np.array(1 << 39), np.array(0)),
        Affine(np.array(0), np.array(0), np.array(64)),
    ],
)
def test_params_are_checked(bad):
    with pytest.raises(ValueError, match="affine"):
        pack_params(bad)


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [
        (Function.GELU_ERF, torch.nn.functional.gelu, 1.4),
        (Function.GELU_TANH, partial(torch.nn.functional.gelu, approximate="tanh"), 1.4),
        (Function.SILU, torch.nn.functional.silu, 2.9),
    ],
)
def test_curves(function, exact, bound):
    """All inputs; half a unit is the rounding, the rest the chords, and the end of the table."""
    unit = 2.0**-GELU_FRACTION_BITS
    expected = exact(torch.from_numpy(EVERY * unit)).numpy()
    error = np.abs(activate(EVERY, function) * unit - expected).max() / unit
    assert error <= bound, error
    assert len(GELU_TABLES[function]) == 32


def test_bytes():
    """Two signed bytes of every number that they can hold, the nearest one of others."""
    x = np.arange(-40000, 40000)
    high, low = to_bytes(x)
    for part in (high, low):
        assert part.min() == -128 and part.max() == 127
    assert (256 * high + low == np.clip(x, 256 * -128, 256 * 127 + 127)).all()


def test_gate():
    """A gate and what it multiplies, which saturates to 16 bits, in exact integers."""
    for gate in (-(1 << 17), -3, (1 << 17) - 1):
        for x in (-(1 << 17), -32768, 5, 32767, (1 << 17) - 1):
            for offset, shift in ((0, 0), (-(1 << 39), 15), ((1 << 39) - 1, 63)):
                p = Affine(*(np.array(v) for v in (9, offset, shift)))
                inside = max(-32768, min(32767, x))
                assert gated(np.array(gate), np.array(x), p) == (gate * inside + offset) >> shift


def test_rotation():
    """Pairs as complex numbers times those of their angles."""
    rng = np.random.default_rng(SEED)
    x = rng.integers(-(1 << 17), 1 << 17, (5, 12))
    angles = rng.integers(-(1 << 15), 1 << 15, (5, 12))
    p = Affine(np.array(0), np.array(1 << 13), np.array(14))
    inside = np.clip(x, -32768, 32767).astype(np.float64)
    turned = inside.view(np.complex128) * angles.astype(np.float64).view(np.complex128)
    expected = np.floor((turned.view(np.float64) + (1 << 13)) / (1 << 14))
    assert (rotated(x, angles, p) == expected).all()


def test_relu_and_none():
    assert (activate(EVERY, Function.RELU) == np.maximum(EVERY, 0)).all()
    assert (activate(EVERY, Function.NONE) == EVERY).all()


@pytest.mark.parametrize("features", [1, 3, 64, 384, 768, 1024, 4096])
def test_layer_norm(features):
    """z against torch in units of 2^-12, relative to |z|: 15 bits of mul, chords, one rounding."""
    rng = np.random.default_rng(SEED + features)
    for spread in (20, 300, 5000, 20000):
        mean = rng.normal(0, spread)
        r = np.clip(np.round(rng.normal(mean, spread, (8, features))), -32768, 32767)
        r = r.astype(np.int64)
        epsilon = features * features  # one unit of variance
        p = norm_row(r.sum(1), (r * r).sum(1), features, epsilon)
        z = middle(r, Affine(p.mul[:, None], p.offset[:, None], p.shift[:, None]))
        exact = torch.nn.functional.layer_norm(
            torch.from_numpy(r.astype(np.float64)), (features,), eps=1.0
        ).numpy()
        inside = np.abs(exact) < 31  # 18 bits end at 32
        error = np.abs(z * 2.0**-NORM_FRACTION_BITS - exact)[inside]
        offset = np.abs(r.mean(1) / np.sqrt(r.var(1) + 1.0))[:, None]
        bound = 2.0**-NORM_FRACTION_BITS + 2.0**-12 * (np.abs(exact) + offset)
        assert (error <= np.broadcast_to(bound, exact.shape)[inside]).all(), (spread, error.max())


def test_constant_rows_have_small_norm():
    """15 bits of mul against a mean of 2^15 times sigma: an error of at most one."""
    for value in (-32768, -1, 0, 32767):
        features = 384
        r = np.full((1, features), value)
        p = norm_row(r.sum(1), (r * r).sum(1), features, features * features)
        z = middle(r, Affine(p.mul[:, None], p.offset[:, None], p.shift[:, None]))
        assert np.abs(z).max() <= 1 << NORM_FRACTION_BITS  # in units of 2^-12


def test_reciprocal():
    """1/l to 12 bits, over powers of two, their neighbours and random sums."""
    rng = np.random.default_rng(SEED)
    powers = np.concatenate([(1 << np.arange(12, SUM_BITS)) + d for d in (-1, 0, 1)])
    total = np.concatenate([powers, rng.integers(1 << 12, 1 << SUM_BITS, 100000)])
    p = reciprocal_row(total)
    # O = l in units of 2^-8 gives 1 in units of 2^-9.
    value = p.mul * 2.0**-p.shift * (total * 2.0**-25 * 2**8) * 2.0**-SCALE_FRACTION_BITS
    usable = p.shift > 0
    assert usable.mean() > 0.9
    assert np.abs(value - 1)[usable].max() < 2e-4


def test_empty_row_gives_zero():
    p = reciprocal_row(np.array([0]))
    assert p.mul[0] == p.offset[0] == p.shift[0] == 0
