"""Linears of 16-bit inputs: integer weights whose sums always fit, and the records behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.isa import Function
from hw.sparse.formats import DENSE, WeightFormat
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear, QuantElementwise, QuantGated, QuantLinear
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.decoder.plan import ActivatedStage, AddStage, GatedStage
from sw.compiler.quantise.decoder.state import STREAM_LEVELS, Operand, State
from sw.compiler.quantise.decoder.stream import exponent_for
from sw.compiler.quantise.gptq import gptq_round
from sw.compiler.quantise.grid import Grid
from sw.compiler.quantise.ranges import LEVELS
from sw.compiler.quantise.scaled import round_scaled, scaled_levels, step_of

__all__ = [
    "RoundedLinear",
    "finest_units",
    "quantise_activated",
    "quantise_add",
    "quantise_gated",
    "round_weight",
    "rounded_linear",
    "too_large",
]

MOST_SUM = (1 << 16) - 1
"""Of an output's magnitudes: times 2^15, the largest input, it is below 2^31."""
SUM_SLACK = 1.002

SUM_FRACTION = 256
"""Of sums of 16-bit inputs and scaled weights."""
MOST_SCALED_SUM = (1 << 24) - (1 << 17)
"""Of what an output's weights are worth: times 2^15 / 256 it is below 2^31, with room for half a
unit of each tile."""

FUNCTION_UNIT = 2.0**-10
MOST_RESIDUAL_SHIFT = 15
HALF_OCTAVES = 28
"""Gates' products are shifted right by at most 10 more than this; offsets have 40 bits."""


def round_weight(scaled: np.ndarray, steps: np.ndarray, operand: Operand) -> np.ndarray:
    """INT8 weights for `scaled` [N, K], real values for the input's integer 1; steps: [N]."""
    return gptq_round(scaled, Grid(steps), operand.factor).astype(np.int64)


def too_large(integers: np.ndarray) -> np.ndarray:
    """By how much the steps of each output must grow for its sums to fit 32 bits; 1: they do."""
    total = np.abs(integers).sum(axis=1)
    return np.where(total > MOST_SUM, total / MOST_SUM * SUM_SLACK, 1.0)


def finest_units(state: State, linear: FloatLinear) -> np.ndarray:
    """Units of a linear's results below which its sums have nothing to say, [N]."""
    reach = np.abs(linear.weight * state.operand(linear.x).unit).max(axis=1)
    return np.maximum(reach, 1e-12) / LEVELS


@dataclass(frozen=True)
class RoundedLinear:
    """weight, format, multipliers: as of `QuantLinear`. first: its first stage."""

    weight: np.ndarray
    first: Affine
    format: WeightFormat = DENSE
    multipliers: np.ndarray | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """Members of `QuantLinear` of the same names."""
        return {"format": self.format, "multipliers": self.multipliers}


def rounded_linear(
    state: State,
    linear: FloatLinear,
    unit: np.ndarray | float,
    zero: np.ndarray | float = 0.0,
    order: np.ndarray | slice = slice(None),
) -> RoundedLinear:
    """Weights, and the first stage that gives `(linear - zero) / unit` of outputs in `order`.

    A record's multiplier has 16 bits; the step of an output's weights is what that can say, so it
    costs no accuracy.
    """
    operand = state.operand(linear.x)
    weight = linear.weight[order].astype(np.float64)
    unit, zero = (np.broadcast_to(np.asarray(a, np.float64), len(weight)) for a in (unit, zero))
    bias = weight @ operand.centre - zero
    if linear.bias is not None:
        bias = bias + linear.bias[order]

    def steps_for(wanted: np.ndarray) -> np.ndarray:
        """Steps, relative to units, that records can say and that are about so large."""
        record = make_affine(wanted, bias / unit, linear.place)
        return np.maximum(np.abs(record.mul), 1) * 2.0**-record.shift

    scaled, format = weight * operand.unit, state.weight_format(linear.x)
    if format.scaled:
        found = _rounded_scaled(scaled, np.abs(unit), steps_for, operand, format, linear.place)
    else:
        found = _rounded_int8(scaled, np.abs(unit), steps_for, operand)
    if state.options.bias_correction:
        centred = operand.real_mean - operand.centre
        bias = bias + weight @ centred - found.steps * (found.worth @ operand.mean)
    first = make_affine(found.of_sums * np.sign(unit), bias / unit, linear.place)
    return RoundedLinear(found.stored.astype(np.int8), first, format, found.multipliers)


@dataclass(frozen=True)
class _Integers:
    """Weights as `stored`, what they are `worth`, and in which `steps`; of_sums: what the array's
    sums are in, in units of the result."""

    stored: np.ndarray
    worth: np.ndarray
    steps: np.ndarray
    of_sums: np.ndarray
    multipliers: np.ndarray | None = None


def _rounded_int8(
    scaled: np.ndarray,
    unit: np.ndarray,
    steps_for: Callable[[np.ndarray], np.ndarray],
    operand: Operand,
) -> _Integers:
    """INT8 weights for `scaled` [N, K] whose sums fit."""
    reach = np.maximum(np.abs(scaled).max(axis=1), 1e-12)
    grow = np.ones(len(scaled))
    integers = np.empty(scaled.shape, np.int64)
    steps = np.empty(len(scaled))
    left = np.arange(len(scaled))
    while len(left):
        steps = steps_for(grow * reach / LEVELS / unit) * unit
        integers[left] = round_weight(scaled[left], steps[left], operand)
        more = too_large(integers[left])
        grow[left] *= more
        left = left[more > 1]
    return _Integers(integers, integers, steps, steps / unit)


def _rounded_scaled(
    scaled: np.ndarray,
    unit: np.ndarray,
    steps_for: Callable[[np.ndarray], np.ndarray],
    operand: Operand,
    format: WeightFormat,
    place: str,
) -> _Integers:
    """Scaled INT4 weights for `scaled` [N, K]. Sums of 16-bit inputs come as their 256th."""
    levels = scaled_levels(scaled, format.group)
    of_sums = steps_for(step_of(levels) * SUM_FRACTION / unit)
    steps = of_sums * unit / SUM_FRACTION
    found = round_scaled(scaled, format, levels, steps, operand.factor)
    if np.abs(found.worth).sum(axis=1).max() > MOST_SCALED_SUM:
        raise CompileError(f"the linear at {place} has too many inputs for {format.name} weights")
    return _Integers(found.values, found.worth, steps, of_sums, found.multipliers)


def quantise_add(state: State, stage: AddStage) -> None:
    """A linear whose result is added to the residual stream.

    The unit of the sum is at least that of the stream before. Where the stream has become so small
    that this wastes bits, another one follows.
    """
    value, before = stage.op.name, state.exponent(state.stream(stage.residual))
    reach = state.reach(value) * state.options.stream_margin
    wanted = exponent_for(state, value, reach)
    exponent = max(before, wanted)
    if exponent - before > MOST_RESIDUAL_SHIFT:
        raise CompileError(f"the residual stream grows by more than 2^15 at {stage.op.place}")
    finer = exponent - wanted >= state.options.refine
    out = state.add_stream(value, exponent, f"{value}.coarse" if finer else "")
    rounded = rounded_linear(state, stage.linear, 2.0**exponent)
    state.emit(
        QuantLinear(
            stage.linear.x,
            rounded.weight,
            rounded.first,
            residual=state.stream(stage.residual),
            residual_shift=exponent - before,
            out16=out,
            place=stage.linear.place,
            **rounded.stored,
        )
    )
    if finer:
        features = state.graph.tensors[out].features
        scale = make_affine(np.full(features, 2.0 ** (exponent - wanted)), 0.0, stage.op.place)
        fine = state.add_stream(value, wanted)
        state.emit(QuantElementwise(out, scale, out16=fine, place=stage.op.place))


def quantise_activated(state: State, stage: ActivatedStage) -> None:
    """A linear and an activation of its result, in 16 bits."""
    function, value = stage.op.function, stage.op.name
    unit = FUNCTION_UNIT
    if function == Function.RELU:  # any unit will do: that of the result
        unit = state.reach_unit(value)
    out = state.reach_unit(value)
    rounded = rounded_linear(state, stage.linear, unit)
    state.emit(
        QuantLinear(
            stage.linear.x,
            rounded.weight,
            rounded.first,
            function,
            second=make_affine(np.array([unit / out]), 0.0, stage.op.place),
            out8=state.add_operand(value, out),
            place=stage.linear.place,
            **rounded.stored,
        )
    )


def quantise_gated(state: State, stage: GatedStage) -> None:
    """The gate in units of 2^-10, the rest in units of each output so that one shift gives the
    result's: `2^-10 * up unit * 2^shift` is the same for all."""
    value = stage.op.name
    reach = np.abs(state.seen_value(stage.up.name)).max(axis=0) * state.options.margin
    needed = np.maximum(reach / STREAM_LEVELS, finest_units(state, stage.up))
    unit = max(state.reach_unit(value), needed.max() * FUNCTION_UNIT)
    finer = np.ceil(np.log2(needed / unit)).clip(-HALF_OCTAVES).astype(np.int64)
    shift = round(-np.log2(FUNCTION_UNIT)) - finer
    gate = rounded_linear(state, stage.gate, FUNCTION_UNIT)
    up = rounded_linear(state, stage.up, unit * 2.0**finer)
    half = np.where(shift > 0, np.left_shift(1, np.maximum(shift - 1, 0)), 0)
    state.emit(
        QuantGated(
            stage.gate.x,
            gate.weight,
            up.weight,
            gate.first,
            up.first,
            Affine(np.zeros_like(shift), half, shift),
            state.add_operand(value, unit),
            stage.function,
            stage.op.place,
            gate.format,
            gate.multipliers,
            up.multipliers,
        )
    )
