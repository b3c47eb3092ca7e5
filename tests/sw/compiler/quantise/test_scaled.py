"""Scaled INT4 weights: levels that are there are found, and decoders are near float32."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from hw.config import PRESETS
from hw.numerics import round_shift
from hw.sparse.formats import DENSE, WeightFormat, WeightFormatError, check_weights, scaled_weights
from hw.vector.golden import to_bytes
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGated, QuantGraph, QuantLinear
from sw.compiler.graph.scaled import scaled_product
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder
from sw.compiler.quantise.decoder.options import decoder_weights
from sw.compiler.quantise.gptq import Factor
from sw.compiler.quantise.scaled import round_scaled, scaled_levels, step_of
from tests.sw.compiler.quantise.test_decoder import CONTEXT, START, divergence, model, sequences

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
Q4 = WeightFormat.parse("q4/32")


def on_levels(
    rng: np.random.Generator, shape: tuple[int, int], size: int, most: int = 16
) -> np.ndarray:
    """Weights `d * q + m` in float32, d and m in float16, q below `most`."""
    outputs, inputs = shape
    groups = -(-inputs // size)
    unit = rng.uniform(0.001, 0.01, (outputs, groups, 1)).astype(np.float16).astype(np.float32)
    low = (-8 * unit + rng.normal(0, 1, unit.shape) * unit).astype(np.float16).astype(np.float32)
    q = rng.integers(0, most, (outputs, groups, size)).astype(np.float32)
    return (unit * q + low).reshape(outputs, -1)[:, :inputs]


@pytest.mark.parametrize(("inputs", "size"), [(64, 32), (50, 16), (7, 32), (96, 4)])
def test_levels_that_are_there(inputs, size):
    """All values are stored as they are, whatever scales the whole matrix."""
    for seed in range(SEED, SEED + 10):
        rng = np.random.default_rng(seed)
        weight = on_levels(rng, (20, inputs), size, int(rng.integers(1, 17))) * float(
            rng.uniform(1e-3, 1e3)
        )
        levels = scaled_levels(weight, size)
        assert levels.exact.all(), f"seed {seed}"
        each = [np.repeat(part, size, axis=1)[:, :inputs] for part in (levels.unit, levels.low)]
        place = (weight - each[1]) / each[0]
        assert np.abs(place - np.rint(place)).max() < 1e-3 and place.max() < 15.001
        steps = step_of(levels)
        format = replace(Q4, group=size)
        found = round_scaled(weight, format, levels, steps, None)
        check_weights(found.values, format, found.multipliers)
        np.testing.assert_array_equal(found.values + 8, np.rint(place), f"seed {seed}")
        # Half a step of the scale times the largest value, and of the offset.
        most = steps[:, None] * (0.5 * 8 + 0.5 * 8 + 0.5)
        assert (np.abs(found.worth * steps[:, None] - weight) <= most).all(), f"seed {seed}"


def test_few_values_of_a_group_are_levels_too():
    """Two values, one value, and none of the levels between."""
    weight = np.zeros((3, 32), np.float32)
    weight[0, 3], weight[1] = 0.5, 0.25
    weight[2, :4] = 0.1 * np.array([0, 2, 5, 15])
    levels = scaled_levels(weight, 32)
    assert levels.exact.all()
    steps = step_of(levels)[:, None]
    found = round_scaled(weight, Q4, levels, steps[:, 0], None)
    # Half a unit of the scale times 8, half a unit of the offset, and float32.
    assert (np.abs(found.worth * steps - weight) <= 8.5 * steps).all()


def test_other_weights_are_rounded_and_gptq_helps():
    rng = np.random.default_rng(SEED)
    weight = rng.normal(0, 0.05, (24, 64))
    x = rng.normal(0, 1, (500, 64)) @ rng.normal(0, 1, (64, 64))
    levels = scaled_levels(weight, 32)
    assert not levels.exact.any()
    errors = []
    for factor in (None, Factor.of(x.T @ x, 0.01)):
        found = round_scaled(weight, Q4, levels, step_of(levels), factor)
        check_weights(found.values, Q4, found.multipliers)
        lost = found.worth * step_of(levels)[:, None] - weight
        errors.append(np.square(x @ lost.T).sum())
    assert errors[1] < 0.7 * errors[0]
    rough = np.square(x @ (weight / 8 - np.rint(weight / 8 * 700) / 700).T * 8).sum()
    assert errors[0] < 100 * rough


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("inputs", "tile"), [(64, 16), (50, 4), (7, 16), (300, 64)])
def test_product_is_what_tiles_give(inputs, tile, wide):
    """Against the loop over tiles in integers, with extremes."""
    for seed in range(SEED, SEED + 5):
        rng = np.random.default_rng(seed)
        format = WeightFormat(bits=4, group=tile, scaled=True, tile=tile)
        groups = -(-inputs // tile)
        values = rng.integers(-8, 8, (9, inputs)).astype(np.int8)
        multipliers = np.stack(
            [rng.choice([0, 3, 255], (9, groups)), rng.choice([-128, 5, 127], (9, groups))], axis=2
        )
        largest = 32639 if wide else 127
        x = rng.choice([-largest - 1, largest, 0, 77], (600, inputs)).astype(np.int64)
        weights = scaled_weights(values, format, multipliers)
        wanted = np.zeros((600, 9), np.int64)
        for start in range(0, inputs, tile):
            part = slice(start, start + tile)
            if wide:
                high, low = to_bytes(x[:, part])
                wanted += high @ weights[:, part].T + round_shift(low @ weights[:, part].T, 8)
            else:
                wanted += x[:, part] @ weights[:, part].T
        found = scaled_product(x, values, format, multipliers, wide)
        np.testing.assert_array_equal(found, wanted, f"seed {seed}")


def formats(graph: QuantGraph) -> list[str]:
    return [op.format.name for op in graph.ops if isinstance(op, QuantLinear | QuantGated)]


def q4_decoder(module: torch.nn.Module, format: WeightFormat = Q4, **options) -> QuantGraph:
    return quantise_decoder(
        capture_decoder(module, context=CONTEXT),
        sequences(8),
        context=CONTEXT,
        prefix=(START,),
        options=DecoderOptions(weights=format, **options),
    )


def test_decoder_with_weights_on_levels():
    """As near to float32 as INT8 is: nothing of the weights is lost but 8 bits of the scales."""
    module = model.__wrapped__(head_dim=16, num_attention_heads=3, num_key_value_heads=1)
    rng = np.random.default_rng(SEED)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("proj.weight"):
                weight = on_levels(rng, tuple(parameter.shape), 32)
                parameter.copy_(torch.from_numpy(weight * (0.2 / weight.std())))
    graph = q4_decoder(module)
    assert divergence(module, graph) < 3
    assert formats(graph) == [*["q4/32"] * 3, "q4/16", "q4/32", "q4/32"] * 2


def test_decoder_with_other_weights():
    """Rounded to 4 bits it is further off, and further without GPTQ."""
    graph = q4_decoder(model())
    assert formats(graph) == [*["q4/32"] * 3, "int8", "q4/32", "q4/32"] * 2  # heads of 8 features
    found = divergence(model(), graph)
    assert 3 < found < divergence(model(), q4_decoder(model(), gptq=False))


def test_compiles_for_the_rows_that_it_was_quantised_for():
    graph = q4_decoder(model(), decoder_weights(4, PRESETS["tiny"]))
    assert formats(graph)[:4] == [*["q4/32@4"] * 3, "q4/4@4"]
    lower_decoder(graph, "tiny", (1,))
    with pytest.raises(CompileError, match=r"weights are for 4 rows, .*'base' has 16: .* q4/32@16"):
        lower_decoder(graph, "base", (1,))


def test_refused():
    with pytest.raises(
        CompileError, match=r"'ulx3s' has no 4-bit weights .*: it needs scales=True"
    ):
        decoder_weights(4, PRESETS["ulx3s"])
    with pytest.raises(CompileError, match=r"weights of 5 bits: .* have 8 or 4"):
        decoder_weights(5, PRESETS["base"])
    assert decoder_weights(8, PRESETS["ulx3s"]) == DENSE
    with pytest.raises(CompileError, match=r"weights 'int4': linears of decoders are int8, or"):
        DecoderOptions(weights=WeightFormat(bits=4))
    values, multipliers = np.zeros((2, 32), np.int8), np.zeros((2, 1, 2), np.int64)
    for change, text in (
        ((0, 0, 0), None),
        ((256, 0, 0), "scales are 0..255, found 0..256"),
        ((0, -129, 0), "offsets are -128..127, found -129..0"),
        ((0, 0, 8), "values are -8..7, found 0..8"),
    ):
        multipliers[0, 0], values[0, 0] = change[:2], change[2]
        if text is None:
            check_weights(values, Q4, multipliers)
            continue
        with pytest.raises(WeightFormatError, match=rf"q4/32: {text}"):
            check_weights(values, Q4, multipliers)
    with pytest.raises(WeightFormatError, match=r"needs multipliers of shape \(2, 1, 2\), found"):
        check_weights(values, Q4, np.zeros((2, 1)))
