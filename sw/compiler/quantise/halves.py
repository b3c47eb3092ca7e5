"""16-bit inputs of linears: a high and a low byte, and a pass of the same weights for each.

The array multiplies bytes, so `W q = 256 W high + W low` for `q = 256 high + low`, both signed.
Both passes add to the same INT16 residual stream, the low one to what the high one left there. So
they are for linears that add to a residual stream, behind a value that one vector command can write
twice from the same sums.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.sparse.formats import WeightFormat
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, FloatLinear, QuantLinear
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.given import take_levels
from sw.compiler.quantise.named import sites
from sw.compiler.quantise.names import low_name, narrow_name, wide_name
from sw.compiler.quantise.ranges import Range
from sw.compiler.quantise.stages import ElementStage, LinearStage, Plan, legalise, plan_stages

if TYPE_CHECKING:
    from sw.compiler.quantise.driver import Quantiser

__all__ = ["declare_halves", "emit_passes", "halved_values", "input_integers", "possible_places"]

BYTE = 256
"""What a high byte counts for."""
LEVELS = (1 << 15) - 1


def refusal(plan: Plan, linear: FloatLinear, wide: Collection[str], levels: Collection[str]) -> str:
    """Why this linear cannot have 16-bit inputs, or "".

    wide: names of all linears that are to have them. levels: values whose levels are given.
    """
    stages = [s for s in plan.stages if isinstance(s, LinearStage) and s.linear.name == linear.name]
    if any(stage.residual is None for stage in stages):
        return "its result is not added to a residual stream"
    (writer,) = (stage for stage in plan.stages if stage.out == linear.x)
    if not isinstance(writer, LinearStage | ElementStage):
        return "its input is not the result of a linear or an activation"
    if isinstance(writer, LinearStage) and writer.residual is not None:
        return "its input is a residual stream itself"
    for reader in plan.narrow[linear.x]:
        if reader.name not in wide:
            return f"the linear at {reader.place} reads the same input with 8 bits"
        if reader.steps is not None or linear.x in levels:
            return "it was trained with given levels"
    return ""


def halved_values(
    plan: Plan, formats: Mapping[str, WeightFormat], levels: Collection[str]
) -> frozenset[str]:
    """Values that linears read as two bytes. formats: by the linear's name.

    Raises `CompileError`, naming the linear, where that is not possible.
    """
    wide = {name for name, format in formats.items() if format.inputs == 16}
    stages = [s for s in plan.stages if isinstance(s, LinearStage) and s.linear.name in wide]
    for stage in stages:
        reason = refusal(plan, stage.linear, wide, levels)
        if reason:
            raise CompileError(
                f"the linear at {stage.linear.place} cannot have 16-bit inputs: {reason}"
            )
    return frozenset(stage.linear.x for stage in stages)


def possible_places(graph: FloatGraph) -> set[str]:
    """Places, as `named.sites` has them, whose linears can have 16-bit inputs."""
    plain, levels = take_levels(graph)
    plan = plan_stages(legalise(plain))
    return {
        place
        for place, linears in sites(plain).items()
        if not any(refusal(plan, op, [op.name for op in linears], levels) for op in linears)
    }


def declare_halves(quantiser: Quantiser, value: str, unit: float | None) -> dict[str, Any]:
    """Declare a value's two bytes; fields of the operation that writes them.

    One scale, so that no weight grows for a channel's sake. unit: real value of 1 before the second
    stage; None: it is to be the 16-bit integer itself.
    """
    data = quantiser.float_value(value)[quantiser.seen]
    reach = float(np.abs(data).max()) * quantiser.options.margin
    scale = np.full(data.shape[1], max(reach, 1e-6) / LEVELS)
    quantiser.add_narrow(value, Range(scale, np.zeros_like(scale)))
    tensors = quantiser.graph.tensors
    high, low = narrow_name(value), low_name(value)
    tensors[low] = replace(tensors[high], name=low)
    tensors[high] = replace(tensors[high], scale=BYTE * scale)
    gain = np.ones_like(scale) if unit is None else unit / scale
    stage = make_affine(gain, 0.0, value, room=BYTE / 2)
    rounding = np.int64(BYTE // 2) << stage.shift
    second = Affine(stage.mul, stage.offset + rounding, stage.shift + 8)
    return {"out8": high, "low8": low, "second": second}


def input_integers(quantiser: Quantiser, value: str) -> np.ndarray:
    """What linears read of a value on the calibration data, 8 or 16 bits."""
    found = quantiser.integers[narrow_name(value)]
    if value in quantiser.halved:
        found = BYTE * found + quantiser.integers[low_name(value)]
    return found


def emit_passes(
    quantiser: Quantiser, op: QuantLinear, stage: LinearStage, gain: np.ndarray, bias: np.ndarray
) -> None:
    """A linear that reads high bytes, as two that read the low bytes as well.

    gain, bias: of the first stage for the 16-bit input.
    """
    tensors, partial = quantiser.graph.tensors, wide_name(f"{stage.out}.high")
    tensors[partial] = replace(tensors[wide_name(stage.out)], name=partial)
    first = make_affine(BYTE * gain, bias, op.place)
    quantiser.emit(replace(op, first=first, second=None, out16=partial, out8=None))
    first = make_affine(gain, 0.0, op.place)
    low = low_name(stage.linear.x)
    quantiser.emit(replace(op, x=low, first=first, residual=partial, residual_shift=0))
