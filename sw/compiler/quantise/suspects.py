"""What may be wrong with calibration data: said before, and where a stage cannot be quantised."""

from __future__ import annotations

import warnings

import numpy as np

from sw.compiler.errors import CalibrationWarning, CompileError
from sw.compiler.graph.operations import FloatInput, operands
from sw.compiler.quantise.stages import InputStage, LinearStage, Stage
from sw.compiler.quantise.state import State

__all__ = ["check_data", "explain"]

LEAST, MOST = 1e-6, 1e8
"""Largest absolute values of inputs; beyond them squares leave float32, or vanish in norms."""
GIVE = "give batches of real inputs, a few hundred rows"


def _is_constant(data: np.ndarray) -> bool:
    """Whether all rows are alike, as far as float32 tells."""
    spread = np.ptp(data, axis=0).max(initial=0.0)
    return bool(spread <= 1e-6 * np.abs(data).max(initial=0.0))


def check_data(state: State) -> None:
    """Look at the inputs on the calibration rows.

    Raises `CompileError` for sizes that cannot be quantised; warns (`CalibrationWarning`) where all
    rows are alike, because no other data fits ranges taken from them.
    """
    stages = [stage for stage in state.plan.stages if isinstance(stage, InputStage)]
    data = [state.visible(stage.out) for stage in stages]
    for stage, values in zip(stages, data, strict=True):
        reach = float(np.abs(values).max())
        if reach > MOST or 0 < reach < LEAST:
            size = "reach" if reach > MOST else "stay below"
            raise CompileError(
                f"values of input {stage.out!r} {size} {reach:.0e} in the calibration data: scale "
                f"them to between {LEAST:.0e} and {MOST:.0e}"
            )
    if data and all(map(_is_constant, data)):
        count = len(data[0])
        rows = "is one row" if count == 1 else f"has {count} rows, all alike"
        warnings.warn(
            f"the calibration data {rows}: ranges taken from it fit no other inputs; {GIVE}",
            CalibrationWarning,
            5,
        )


def explain(state: State, stage: Stage, error: CompileError) -> CompileError:
    """The error of a stage with what the data shows, if it shows anything."""
    wanted, names = [stage.out], set()
    if isinstance(stage, LinearStage):
        wanted.append(stage.linear.x)
    while wanted:
        name = wanted.pop()
        if name not in names:
            names.add(name)
            wanted += operands(state.by_name[name])
    for op in state.float_graph.ops:
        if op.name not in names or (isinstance(op, FloatInput) and op.kind != "float"):
            continue
        if _is_constant(state.visible(op.name)):
            if isinstance(op, FloatInput):
                reason = f"all calibration rows of {op.name!r} are alike; {GIVE}"
            else:
                reason = (
                    f"all calibration rows are alike behind {op.place or op.name}; leave it out if "
                    f"its weights are zero, else {GIVE}"
                )
            return CompileError(f"{error}: {reason}")
    return error
