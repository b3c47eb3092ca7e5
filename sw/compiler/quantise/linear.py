"""Linear layers: weights for the integers that really arrive, and the operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from hw.isa import Function
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear, QuantLinear
from sw.compiler.graph.reference import from_integers
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.attention import declare_operand
from sw.compiler.quantise.given import given_weight
from sw.compiler.quantise.names import narrow_name, wide_name
from sw.compiler.quantise.passes import emit_passes, input_integers
from sw.compiler.quantise.result_tensors import declare_results, function_unit, row_weight
from sw.compiler.quantise.stages import LinearStage
from sw.compiler.quantise.state import State
from sw.compiler.quantise.weights import Inputs, QuantisedWeight, quantise_weight

__all__ = ["quantise_linear"]


def _inputs(state: State, linear: FloatLinear) -> Inputs:
    """What a linear reads; one object for all that read it and count all rows alike."""
    alike = state.stage_of[linear.name].residual is None
    if alike and state.shared is not None and state.shared[0] == linear.x:
        return state.shared[1]
    x = input_integers(state, linear.x)[state.seen]
    found = Inputs(x, state.visible(linear.x), row_weight(state, linear))
    state.shared = (linear.x, found) if alike else None
    return found


def _weight(state: State, stage: LinearStage) -> QuantisedWeight:
    linear, error = stage.linear, None
    format, chosen = state.format_of(linear), state.ranges[linear.x]
    if linear.steps is not None:
        return QuantisedWeight(*given_weight(linear, format, chosen))
    if stage.residual is not None and stage.function == Function.NONE:
        wide = wide_name(stage.residual)
        now = from_integers(state.integers[wide], state.graph.tensors[wide])
        error = (state.float_value(stage.residual) - now)[state.seen]
    return quantise_weight(linear, format, chosen, _inputs(state, linear), error, state.options)


def _unit(state: State, stage: LinearStage) -> tuple[float | None, int]:
    """Real value of 1 behind the first stage, whose INT16 tensor is declared if there is one, and
    the shift of the residual to it; None: the first stage gives the bytes."""
    value = stage.out
    if stage.function != Function.NONE and stage.residual is None:
        return function_unit(state, stage, stage.function), 0
    if stage.residual is not None:
        before = round(np.log2(state.wide_scale(stage.residual)))
        if stage.function == Function.NONE:
            unit = state.add_wide(value, at_least=before)
        else:
            unit = function_unit(state, stage, stage.function)
        shift = round(np.log2(unit)) - before
        if not 0 <= shift <= 15:
            place = stage.linear.place
            raise CompileError(f"residual operands differ by more than 2^15 at {place}")
        return unit, shift
    return (state.add_wide(value) if state.is_wide(value) else None), 0


def quantise_linear(state: State, stage: LinearStage) -> None:
    linear, value, weight = stage.linear, stage.out, _weight(state, stage)
    fields: dict[str, Any] = {"out8": narrow_name(value)}
    if stage.role:
        declare_operand(state, stage)
        unit, shift = None, 0
    else:
        unit, shift = _unit(state, stage)
        fields = declare_results(state, stage, unit)
    chosen = state.ranges.get(value)
    if unit is None:
        assert chosen is not None
        gain, bias = weight.gain / chosen.scale, (weight.bias - chosen.zero) / chosen.scale
    else:
        if chosen is not None and chosen.source is not None:
            weight = weight.take(chosen.source)
        gain, bias = weight.gain / unit, weight.bias / unit
    op = QuantLinear(
        narrow_name(linear.x),
        weight.integers,
        make_affine(gain, bias, linear.place),
        stage.function,
        None if stage.residual is None else wide_name(stage.residual),
        shift,
        place=linear.place,
        copied_outputs=0 if chosen is None else chosen.copied,
        copied_inputs=state.ranges[linear.x].copied,
        format=state.format_of(linear),
        multipliers=weight.multipliers,
        **fields,
    )
    if linear.x in state.halved:
        emit_passes(state, op, stage, gain, bias)
    else:
        state.emit(op)
