"""Which linears can have 16-bit inputs: two bytes, and a pass of the same weights for each.

The array multiplies bytes, so `W q = 256 W high + W low` for `q = 256 high + low`, both signed.
Both passes add to the same INT16 residual stream, the low one to what the high one left there. So
they are for linears that add to a residual stream, behind a value that one vector command can write
twice from the same sums.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hw.isa import Function
from hw.sparse.formats import WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, FloatLinear
from sw.compiler.quantise.given import take_levels
from sw.compiler.quantise.named import sites
from sw.compiler.quantise.stages import ElementStage, LinearStage, Plan, legalise, plan_stages

__all__ = ["halved_values", "possible_places"]


def refusal(plan: Plan, linear: FloatLinear, wide: Collection[str], levels: Collection[str]) -> str:
    """Why this linear cannot have 16-bit inputs, or "".

    wide: names of all linears that are to have them. levels: values whose levels are given.
    """
    stages = [s for s in plan.stages if isinstance(s, LinearStage) and s.linear.name == linear.name]
    if any(stage.residual is None for stage in stages):
        return "its result is not added to a residual stream"
    if any(stage.function != Function.NONE for stage in stages):
        return "a function stands between its result and the residual stream"
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
