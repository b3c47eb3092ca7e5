"""Weight formats: names, what they can hold, and what is refused, with its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.sparse.formats import (
    DENSE,
    WeightFormat,
    WeightFormatError,
    check_weights,
    int4_values,
    quads,
)

formats = st.builds(
    lambda sparse, bits, group, inputs: WeightFormat(
        sparse, bits, 4 * group if bits == 4 else 0, inputs
    ),
    st.booleans(),
    st.sampled_from([4, 8]),
    st.integers(0, 100),
    st.sampled_from([8, 16]),
)


@given(formats)
def test_names_are_read_back(format):
    assert WeightFormat.parse(format.name) == format


@pytest.mark.parametrize(
    ("name", "format", "bits"),
    [
        ("int8", DENSE, 8),
        ("int4", WeightFormat(bits=4), 4),
        ("int4/32", WeightFormat(bits=4, group=32), 4.25),
        ("2:4 int8", WeightFormat(True), 5),
        ("2:4 int4", WeightFormat(True, 4), 3),
        ("2:4 int4/16", WeightFormat(True, 4, 16), 3.5),
        ("int8 x int16", WeightFormat(inputs=16), 8),
        ("2:4 int4/16 x int16", WeightFormat(True, 4, 16, 16), 3.5),
    ],
)
def test_names_and_bits(name, format, bits):
    """A 2:4 weight is half a value and half of two index bits."""
    assert format.name == name and WeightFormat.parse(name) == format
    assert format.bits_per_weight == bits == format.stored.bits_per_weight
    assert format.stored.name == name.removesuffix(" x int16")
    assert format.passes == (2 if name.endswith(" x int16") else 1)


@pytest.mark.parametrize(
    "name",
    ["", "int2", "int", "2:4", "2:4int8", "int4/", "int4/x", "1:4 int8", "int8 x int4", "int16"],
)
def test_unknown_names(name):
    with pytest.raises(WeightFormatError, match=f"unknown weight format '{name}': int8, int4"):
        WeightFormat.parse(name)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"bits": 2}, "4 or 8 bits, not 2"),
        ({"inputs": 4}, "8 or 16 bits, not 4"),
        ({"group": 32}, "8-bit weights in groups of 32"),
        ({"bits": 4, "group": -4}, "4-bit weights in groups of -4"),
        ({"bits": 4, "group": 6}, "groups of 6 inputs: not a multiple of 4"),
    ],
)
def test_impossible_formats(fields, text):
    with pytest.raises(WeightFormatError, match=text):
        WeightFormat(**fields)
    if "group" in fields and "bits" not in fields:
        with pytest.raises(WeightFormatError, match=text):
            WeightFormat.parse("int8/32")


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 70])
def test_quads_are_padded_with_zeros(k):
    weight = np.arange(1, 3 * k + 1).reshape(3, k)
    found = quads(weight)
    assert found.shape == (3, -(-k // 4), 4)
    flat = found.reshape(3, -1)
    np.testing.assert_array_equal(flat[:, :k], weight)
    assert not flat[:, k:].any()


@pytest.mark.parametrize("k", [6, 8, 70])
def test_2_of_4(k):
    """Counted in quads from input 0 on; the last one may be short."""
    sparse = WeightFormat(True)
    weight = np.zeros((5, k), np.int8)
    check_weights(weight, sparse)
    weight[:, 2:6] = 1  # two of each quad, although four follow each other
    check_weights(weight, sparse)
    weight[3, 0] = -1
    check_weights(weight, DENSE)
    text = r"output 3, inputs 0\.\.3 have more than 2 weights that are not 0 \(1 such"
    with pytest.raises(WeightFormatError, match=text):
        check_weights(weight, sparse)


@pytest.mark.parametrize("k", [7, 71])
def test_2_of_4_in_a_short_quad(k):
    sparse = WeightFormat(True)
    weight = np.zeros((2, k), np.int8)
    weight[1, k - 2 :] = -128
    check_weights(weight, sparse)
    weight[1, k - 3] = 1
    with pytest.raises(WeightFormatError, match=rf"output 1, inputs {k - 3}\.\.{k} have more"):
        check_weights(weight, sparse)


def test_int4_without_groups():
    int4 = WeightFormat(bits=4)
    weight = np.array([[-8, 7, 0], [1, -1, 5]], np.int8)
    np.testing.assert_array_equal(int4_values(weight, int4, None), weight)
    check_weights(weight, int4)
    for value in (8, -9, 127, -128):
        weight[1, 2] = value
        with pytest.raises(
            WeightFormatError, match=rf"weight\[1, 2\] = {value} is not .* times 1: 1"
        ):
            check_weights(weight, int4)


def test_int4_extremes_are_int8():
    """-8 * 16 = -128 and 7 * 16 = 112, each multiplier, and a last group that is short."""
    form = WeightFormat(bits=4, group=4)
    values = np.tile(np.arange(-8, 8), (16, 1))[:, :14]
    multipliers = np.repeat(np.arange(1, 17)[:, None], 4, axis=1)
    weight = values * multipliers[:, :1]
    assert weight.min() == -128 and (values[-1, -1] + 1) * 16 == 96
    np.testing.assert_array_equal(int4_values(weight.astype(np.int8), form, multipliers), values)
    check_weights(np.full((1, 4), 112, np.int8), form, np.array([[16]]))


@pytest.mark.parametrize(
    ("multipliers", "text"),
    [
        (None, r"int4/4 needs multipliers of shape \(2, 2\), found None"),
        (np.ones((2, 1), int), r"shape \(2, 2\), found \(2, 1\)"),
        (np.array([[1, 1], [0, 1]]), r"multipliers are 1\.\.16, found 0\.\.1"),
        (np.array([[1, 17], [1, 1]]), r"multipliers are 1\.\.16, found 1\.\.17"),
        (np.array([[3, 3], [3, 2]]), r"weight\[1, 5\] = 3 is not a value of -8\.\.7 times 2"),
    ],
)
def test_multipliers(multipliers, text):
    weight = np.full((2, 6), 3, np.int8)
    weight[1, 4] = 2
    weight[0] = 0
    with pytest.raises(WeightFormatError, match=text):
        check_weights(weight, WeightFormat(bits=4, group=4), multipliers)
