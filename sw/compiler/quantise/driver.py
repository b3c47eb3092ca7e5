"""Quantise stage by stage: ranges, weights and records from what the integers before give.

Every stage is executed in integers on the calibration data as soon as it is fixed, so the next
one is calibrated on the values it will really see, and compares with the float graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, QuantGraph, QuantOutput
from sw.compiler.quantise.attention import quantise_attention
from sw.compiler.quantise.linear import quantise_linear
from sw.compiler.quantise.names import narrow_name, wide_name
from sw.compiler.quantise.options import Progress, QuantOptions
from sw.compiler.quantise.stages import ElementStage, InputStage, LinearStage, NormStage, Stage
from sw.compiler.quantise.state import State
from sw.compiler.quantise.suspects import check_data, explain
from sw.compiler.quantise.weightless import quantise_element, quantise_input, quantise_norm

__all__ = ["quantise_stages"]


def _quantise_stage(state: State, stage: Stage) -> None:
    if isinstance(stage, InputStage):
        quantise_input(state, stage)
    elif isinstance(stage, LinearStage):
        quantise_linear(state, stage)
    elif isinstance(stage, ElementStage):
        quantise_element(state, stage)
    elif isinstance(stage, NormStage):
        quantise_norm(state, stage)
    else:
        quantise_attention(state, stage)


def quantise_stages(
    graph: FloatGraph,
    calibration: Sequence[object],
    options: QuantOptions,
    progress: Progress | None,
) -> QuantGraph:
    """As `quantise`, with `options.permute` done."""
    state = State(graph, calibration, options)
    check_data(state)
    stages = state.plan.stages
    for number, stage in enumerate(stages):
        if progress is not None:
            progress(stage.out, number / len(stages))
        try:
            _quantise_stage(state, stage)
        except CompileError as error:
            raise explain(state, stage, error) from None
        state.forget(number)
    for name, shape in state.float_graph.outputs:
        tensor = wide_name(name) if name in state.plan.wide else narrow_name(name)
        state.graph.outputs.append(QuantOutput(tensor, shape))
    if progress is not None:
        progress("done", 1.0)
    return state.graph
