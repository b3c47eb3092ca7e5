"""The GEMM golden against the loop nest of `hw/isa.py`, written out element by element."""

import numpy as np
import pytest

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE
from hw.systolic.golden import gemm

CONFIG = AcceleratorConfig(
    rows=4,
    columns=6,
    lanes=2,
    bus_bytes=4,
    activation_words=64,
    weight_words=128,
    accumulator_words=64,
    row_slots=16,
    mask_words=8,
)


def wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def loops(v, activation, weight, acc, row_max, shift, mask) -> None:
    """The loop nest, in Python integers."""
    for n in range(v["n_tiles"]):
        for k in range(v["k_tiles"]):
            base = v["w_address"] + n * v["w_n_stride"] + k * v["w_k_stride"]
            for i in range(v["rows"]):
                word = activation[v["a_address"] + k * v["a_stride"] + i]
                a = [int(b) if v["a_unsigned"] or b < 128 else int(b) - 256 for b in word]
                address = v["acc_address"] + n * v["acc_stride"] + i
                best = MASKED_SCORE if n == 0 else int(row_max[v["slot"] + i])
                last = k == v["k_tiles"] - 1 and v["row_max"]
                for c in range(CONFIG.columns):
                    x = int(acc[address][c])
                    if k == 0:
                        if not v["accumulate"]:
                            x = 0
                        elif v["rescale"]:
                            s = int(shift[v["slot"] + i])
                            x = x << -s if s < 0 else (x + (1 << (s - 1) if s else 0)) >> s
                    for r in range(CONFIG.rows):
                        w = weight[base + c][r] if v["w_by_column"] else weight[base + r][c]
                        x += a[r] * int(w)
                    x = wrap(x)
                    if last:
                        if v["mask"] and not mask[v["mask_address"] + n][c]:
                            x = MASKED_SCORE
                        if n * CONFIG.columns + c < v["limit"] + (i if v["causal"] else 0):
                            best = max(best, x)
                    acc[address][c] = x
                if last:
                    row_max[v["slot"] + i] = best


def random_values(rng: np.random.Generator) -> dict[str, int]:
    flag = lambda: int(rng.integers(2))  # noqa: E731
    rows = int(rng.integers(1, 7))
    return {
        "rows": rows,
        "k_tiles": int(rng.integers(1, 4)),
        "n_tiles": int(rng.integers(1, 4)),
        "a_address": int(rng.integers(20)),
        "a_stride": int(rng.integers(10)),
        "a_unsigned": flag(),
        "w_address": int(rng.integers(40)),
        "w_by_column": flag(),
        "w_k_stride": int(rng.integers(12)),
        "w_n_stride": int(rng.integers(20)),
        "acc_address": int(rng.integers(20)),
        "acc_stride": int(rng.integers(10)),  # also overlapping panels
        "accumulate": flag(),
        "rescale": flag(),
        "row_max": flag(),
        "mask": flag(),
        "mask_address": int(rng.integers(4)),
        "slot": int(rng.integers(10)),
        "limit": int(rng.integers(-4, 24)),
        "causal": flag(),
    }


@pytest.mark.parametrize("seed", range(60))
def test_golden_is_the_loop_nest(seed):
    rng = np.random.default_rng(seed)
    v = random_values(rng)
    activation = rng.choice(
        np.array([0, 1, 127, 128, 255, 37], dtype=np.uint8), (CONFIG.activation_words, CONFIG.rows)
    )
    weight = rng.integers(-128, 128, (CONFIG.weight_words, CONFIG.weight_bytes), dtype=np.int8)
    acc = rng.integers(
        -(1 << 31), 1 << 31, (CONFIG.accumulator_words, CONFIG.columns), dtype=np.int32
    )
    row_max = rng.integers(-1000, 1000, CONFIG.row_slots, dtype=np.int32)
    shift = rng.integers(-7, 32, CONFIG.row_slots)
    mask = rng.integers(0, 2, (CONFIG.mask_words, CONFIG.columns)).astype(bool)
    expected_acc, expected_max = acc.copy(), row_max.copy()
    loops(v, activation, weight, expected_acc, expected_max, shift, mask)
    gemm(CONFIG, v, activation, weight, acc, row_max, shift, mask)
    np.testing.assert_array_equal(acc, expected_acc)
    np.testing.assert_array_equal(row_max, expected_max)


def test_float64_is_used_where_float32_is_not_exact():
    """2,400 products of 255 * -128 need 27 bits."""
    words = 600
    config = AcceleratorConfig(
        rows=4, columns=4, lanes=2, bus_bytes=4, activation_words=1024, weight_words=1024
    )
    activation = np.full((1024, 4), 255, dtype=np.uint8)
    weight = np.full((1024, 4), -128, dtype=np.int8)
    weight[1] = -127
    acc = np.zeros((4, 4), dtype=np.int32)
    gemm(
        config,
        {"rows": 1, "k_tiles": words, "n_tiles": 1, "a_stride": 1, "a_unsigned": 1, "w_k_stride": 0}
        | {"w_address": 0},
        activation,
        weight,
        acc,
        np.zeros(8, np.int32),
        np.zeros(8, np.int32),
        np.ones((1, 4), bool),
    )
    assert (acc[0] == words * 255 * (-3 * 128 - 127)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"a_address": 64},
        {"w_address": 125},
        {"acc_address": 64},
        {"slot": 16, "row_max": 1},
        {"slot": 16, "rescale": 1, "accumulate": 1},
        {"mask_address": 8, "mask": 1, "row_max": 1},
    ],
)
def test_addresses_beyond_a_memory_are_refused(change):
    acc = np.zeros((CONFIG.accumulator_words, CONFIG.columns), np.int32)
    with pytest.raises(IndexError):
        gemm(
            CONFIG,
            {"rows": 1, "k_tiles": 1, "n_tiles": 1} | change,
            np.ones((CONFIG.activation_words, CONFIG.rows), np.uint8),
            np.ones((CONFIG.weight_words, CONFIG.weight_bytes), np.int8),
            acc,
            np.zeros(CONFIG.row_slots, np.int32),
            np.zeros(CONFIG.row_slots, np.int32),
            np.ones((CONFIG.mask_words, CONFIG.columns), bool),
        )
    assert not acc.any()
