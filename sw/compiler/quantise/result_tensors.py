"""Integer forms of a stage's result: which tensors it gets, and with which ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

from hw.isa import GELU_FRACTION_BITS, Function
from sw.compiler.graph.operations import FloatLinear
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.given import one_scale
from sw.compiler.quantise.names import narrow_name, wide_name
from sw.compiler.quantise.passes import declare_halves
from sw.compiler.quantise.ranges import Range, search_range
from sw.compiler.quantise.stages import ElementStage, LinearStage
from sw.compiler.quantise.state import State

__all__ = ["declare_narrow", "declare_results", "function_unit", "row_weight"]

LOWEST = {Function.RELU: 0.0, Function.GELU_ERF: -0.1702, Function.GELU_TANH: -0.1702}
"""Least value of each function."""


def row_weight(state: State, linear: FloatLinear) -> np.ndarray:
    """How much errors of this linear's result count, row by row.

    What is added to a residual stream is normalised later: a row of large variance hides
    its errors.
    """
    stage = state.stage_of[linear.name]
    result = state.visible(stage.out)
    if stage.residual is None:
        return np.ones(len(result))
    weight = 1 / np.maximum(result.var(axis=1, dtype=np.float64), 1e-12)
    return weight / weight.mean()


def declare_narrow(state: State, value: str, extra: int = 0, lowest: float = -np.inf) -> Range:
    """Declare the INT8 tensor that linears read of a value, with the best range found.

    extra: how many copies of channels may be added. lowest: no value can be below.
    """
    chosen = _range(state, value, extra, lowest)
    state.add_narrow(value, chosen)
    return chosen


def _range(state: State, value: str, extra: int, lowest: float) -> Range:
    readers = state.plan.narrow.get(value, [])
    data = state.visible(value)
    if value in state.levels:
        given = state.levels[value]
        scale = np.full(data.shape[1], given.scale)
        return Range(scale, -scale * given.zero)
    if any(linear.steps is not None for linear in readers):
        return one_scale(data)
    weights = [(linear.weight, state.format_of(linear)) for linear in readers]
    weight = row_weight(state, readers[0]) if readers else np.ones(len(data))
    return search_range(data, weights, weight, state.options, extra, lowest)


def function_unit(state: State, stage: LinearStage | ElementStage, function: Function) -> float:
    """Real value of one unit at the function, declaring the INT16 result if there is one."""
    value = stage.out
    if function != Function.RELU:
        if state.is_wide(value):
            state.add_wide(value, -GELU_FRACTION_BITS)
        return 2.0**-GELU_FRACTION_BITS
    if state.is_wide(value):
        return state.add_wide(value)
    reach = float(np.abs(state.visible(value)).max())
    return 2.0 ** np.ceil(np.log2(max(reach, 2.0**-24) * state.options.margin / 2**17))


def declare_results(
    state: State, stage: LinearStage | ElementStage, unit: float | None
) -> dict[str, Any]:
    """Declare the bytes of a result; fields of the operation for all its forms.

    unit: real value of 1 before the second stage, whose INT16 tensor, if any, is declared; None:
    there is no second stage.
    """
    value, fields = stage.out, {}
    if state.is_wide(value):
        fields["out16"] = wide_name(value)
    if value in state.halved:
        fields |= declare_halves(state, value, unit)
    elif state.is_narrow(value):
        linear = isinstance(stage, LinearStage)
        function = stage.function if linear else stage.op.function
        extra = 0
        if linear and function and not state.is_wide(value):
            # Copies would pull the quads of a sparse reader apart.
            if not any(state.format_of(reader).sparse for reader in state.plan.narrow[value]):
                extra = state.options.extra_channels(len(stage.linear.weight))
        chosen = declare_narrow(state, value, extra, LOWEST.get(function, -np.inf))
        fields["out8"] = narrow_name(value)
        if unit is not None:
            fields["second"] = make_affine(unit / chosen.scale, -chosen.zero / chosen.scale, value)
    return fields
