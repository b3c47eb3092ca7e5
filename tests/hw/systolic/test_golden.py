"""The GEMM golden against the loop nest of `hw/isa.py`, written out element by element."""

import numpy as np
import pytest

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE, MATRIX_OPCODES, Opcode
from hw.systolic.golden import gemm

SIZES = {
    "lanes": 2,
    "bus_bytes": 4,
    "activation_words": 64,
    "weight_words": 128,
    "accumulator_words": 64,
    "row_slots": 16,
    "mask_words": 8,
}
CONFIG = AcceleratorConfig(rows=4, columns=6, **SIZES)
CONFIGS = (CONFIG, AcceleratorConfig(rows=10, columns=4, **SIZES))


def wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def signed(value: int, bits: int = 8) -> int:
    value = int(value) % (1 << bits)
    return value - (1 << bits) if value >> (bits - 1) else value


def tile(config, opcode, v, weight, base, multipliers) -> list[list[tuple[int, int]]]:
    """(input, weight) of each row of a tile and column."""
    found = []
    for r in range(config.rows):
        line = []
        for c in range(config.columns):
            q, u = divmod(r, 4)
            place = r
            if v["w_by_column"]:
                byte = weight[base + c][r]
            elif opcode == Opcode.SPARSE_GEMM:
                block = base + q * (3 if v["w_int4"] else 5)
                index = int(weight[block][c]) >> 2 * u & 3
                byte = weight[block + 1 + (u // 2 if v["w_int4"] else u)][c]
                place = 4 * (r // 2) + r % 2 + min(index, 2)
            else:
                byte = weight[base + (r // 2 if v["w_int4"] else r)][c]
            if v["w_int4"]:
                value = signed(int(byte) >> 4 * (r % 2), 4)
                value *= multipliers[c] if multipliers else 1
            else:
                value = signed(byte)
            line.append((place, value))
        found.append(line)
    return found


def scaled(a, line, scale, offset) -> int:
    """Sum of a row and a column of a SCALED_GEMM, of bytes."""
    return (int(scale) & 255) * sum(a[place] * w for place, w in line) + 8 * int(offset) * sum(a)


def loops(config, opcode, v, activation, weight, acc, row_max, shift, mask) -> None:
    """The loop nest, in Python integers."""
    panels = 2 if opcode == Opcode.SPARSE_GEMM else 1
    multipliers: list[int] = []
    scales = offsets = weight[0]
    for n in range(v["n_tiles"]):
        for k in range(v["k_tiles"]):
            base = v["w_address"] + n * v["w_n_stride"] + k * v["w_k_stride"]
            if opcode == Opcode.SCALED_GEMM:
                base += 2 * (k // v["w_group"] + 1)
                if k % v["w_group"] == 0:
                    scales, offsets = weight[base - 2], weight[base - 1]
            elif v["w_group"]:
                base += k // v["w_group"] + 1
                if k % v["w_group"] == 0:
                    multipliers = [int(byte) % 16 + 1 for byte in weight[base - 1]]
            weights = tile(config, opcode, v, weight, base, multipliers)
            for i in range(v["rows"]):
                a, halves = [], []
                for panel in range(panels):
                    start = v["a_address"] + (panels * k + panel) * v["a_stride"]
                    if v["wide"]:
                        high, low = activation[start + 2 * i], activation[start + 2 * i + 1]
                        halves = [[signed(byte) for byte in half] for half in (high, low)]
                        a += [256 * h + b for h, b in zip(*halves, strict=True)]
                    else:
                        word = activation[start + i].tolist()
                        a += [b if v["a_unsigned"] else signed(b) for b in word]
                address = v["acc_address"] + n * v["acc_stride"] + i
                best = MASKED_SCORE if n == 0 else int(row_max[v["slot"] + i])
                last = k == v["k_tiles"] - 1 and v["row_max"]
                for c in range(config.columns):
                    x = int(acc[address][c])
                    if k == 0:
                        if not v["accumulate"]:
                            x = (x + 128) >> 8 if v["rescale"] else 0
                        elif v["rescale"]:
                            s = int(shift[v["slot"] + i])
                            x = x << -s if s < 0 else (x + (1 << (s - 1) if s else 0)) >> s
                    line = [row[c] for row in weights]
                    if opcode != Opcode.SCALED_GEMM:
                        x += sum(a[place] * w for place, w in line)
                    elif v["wide"]:
                        high, low = (scaled(half, line, scales[c], offsets[c]) for half in halves)
                        x += high + (low + 128 >> 8)
                    else:
                        x += scaled(a, line, scales[c], offsets[c])
                    x = wrap(x)
                    if last:
                        if v["mask"] and not mask[v["mask_address"] + n][c]:
                            x = MASKED_SCORE
                        row = i % v["period"] if v["period"] else i
                        if n * config.columns + c < v["limit"] + (row if v["causal"] else 0):
                            best = max(best, x)
                    acc[address][c] = x
                if last:
                    row_max[v["slot"] + i] = best


def random_values(rng: np.random.Generator, opcode: Opcode) -> dict[str, int]:
    flag = lambda: int(rng.integers(2))  # noqa: E731
    rows = int(rng.integers(1, 7))
    int4, wide = int(opcode == Opcode.SCALED_GEMM) or flag(), flag()
    return {
        "rows": rows,
        "k_tiles": int(rng.integers(1, 4)),
        "n_tiles": int(rng.integers(1, 4)),
        "a_address": int(rng.integers(8)),
        "a_stride": int(rng.integers(10)),
        "a_unsigned": 0 if wide else flag(),
        "w_address": int(rng.integers(40)),
        "w_by_column": 0 if int4 or opcode == Opcode.SPARSE_GEMM else flag(),
        "w_int4": int4,
        "w_group": int(rng.integers(opcode == Opcode.SCALED_GEMM, 4)) if int4 else 0,
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
        "period": int(rng.integers(6)),
        "wide": wide,
    }


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("opcode", MATRIX_OPCODES, ids=["dense", "sparse", "scaled", "low"])
@pytest.mark.parametrize("config", CONFIGS, ids=["4x6", "10x4"])
def test_golden_is_the_loop_nest(config, opcode, seed):
    rng = np.random.default_rng(seed)
    v = random_values(rng, opcode)
    activation = rng.choice(
        np.array([0, 1, 127, 128, 255, 37], dtype=np.uint8), (config.activation_words, config.rows)
    )
    weight = rng.integers(-128, 128, (config.weight_words, config.weight_bytes), dtype=np.int8)
    acc = rng.integers(
        -(1 << 31), 1 << 31, (config.accumulator_words, config.columns), dtype=np.int32
    )
    row_max = rng.integers(-1000, 1000, config.row_slots, dtype=np.int32)
    shift = rng.integers(-7, 32, config.row_slots)
    mask = rng.integers(0, 2, (config.mask_words, config.columns)).astype(bool)
    expected_acc, expected_max = acc.copy(), row_max.copy()
    loops(config, opcode, v, activation, weight, expected_acc, expected_max, shift, mask)
    gemm(config, v, activation, weight, acc, row_max, shift, mask, opcode)
    np.testing.assert_array_equal(acc, expected_acc)
    np.testing.assert_array_equal(row_max, expected_max)


@pytest.mark.parametrize(("wide", "words"), [(0, 600), (1, 3)])
def test_float64_is_used_where_float32_is_not_exact(wide, words):
    """2,400 products of 255 * -128 need 27 bits, 12 of the largest wide activation 26."""
    config = AcceleratorConfig(
        rows=4, columns=4, lanes=2, bus_bytes=4, activation_words=1024, weight_words=1024
    )
    byte, value = (127, 257 * 127) if wide else (255, 255)
    activation = np.full((1024, 4), byte, dtype=np.uint8)
    weight = np.full((1024, 4), -128, dtype=np.int8)
    weight[1] = -127
    acc = np.zeros((4, 4), dtype=np.int32)
    gemm(
        config,
        {"rows": 1, "k_tiles": words, "n_tiles": 1, "a_stride": 1, "w_k_stride": 0}
        | {"w_address": 0, "wide": wide, "a_unsigned": 1 - wide},
        activation,
        weight,
        acc,
        np.zeros(8, np.int32),
        np.zeros(8, np.int32),
        np.ones((1, 4), bool),
    )
    assert (acc[0] == words * value * (-3 * 128 - 127)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"a_address": 64},
        {"a_address": 63, "wide": 1},
        {"w_address": 125},
        {"acc_address": 64},
        {"slot": 16, "row_max": 1},
        {"slot": 16, "rescale": 1, "accumulate": 1},
        {"mask_address": 8, "mask": 1, "row_max": 1},
        {"w_address": 126, "w_int4": 1, "w_group": 1},
        {"w_address": 125, "w_int4": 1, "w_group": 1, "opcode": Opcode.SCALED_GEMM},
        {"w_address": 124, "opcode": Opcode.SPARSE_GEMM},
        {"w_address": 126, "w_int4": 1, "opcode": Opcode.SPARSE_GEMM},
        {"a_address": 63, "a_stride": 1, "opcode": Opcode.SPARSE_GEMM},
    ],
)
def test_addresses_beyond_a_memory_are_refused(change):
    opcode = change.get("opcode", Opcode.GEMM)
    change = {name: value for name, value in change.items() if name != "opcode"}
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
            opcode,
        )
    assert not acc.any()
