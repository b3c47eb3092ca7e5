"""Two bytes of a value, and the two passes of the same weights that read them (halves.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hw.vector.golden import Affine
from sw.compiler.graph.operations import QuantLinear
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.names import low_name, narrow_name, wide_name
from sw.compiler.quantise.ranges import Range
from sw.compiler.quantise.stages import LinearStage
from sw.compiler.quantise.state import State

__all__ = ["declare_halves", "emit_passes", "input_integers"]

BYTE = 256
"""What a high byte counts for."""
LEVELS = (1 << 15) - 1


def declare_halves(state: State, value: str, unit: float | None) -> dict[str, Any]:
    """Declare a value's two bytes; fields of the operation that writes them.

    One scale, so that no weight grows for a channel's sake. unit: real value of 1 before the second
    stage; None: it is to be the 16-bit integer itself.
    """
    data = state.visible(value)
    reach = float(np.abs(data).max()) * state.options.margin
    scale = np.full(data.shape[1], max(reach, 1e-6) / LEVELS)
    state.add_narrow(value, Range(scale, np.zeros_like(scale)))
    tensors = state.graph.tensors
    high, low = narrow_name(value), low_name(value)
    tensors[low] = replace(tensors[high], name=low)
    tensors[high] = replace(tensors[high], scale=BYTE * scale)
    gain = np.ones_like(scale) if unit is None else unit / scale
    whole = make_affine(gain, 0.0, value, room=BYTE / 2)
    rounding = np.int64(BYTE // 2) << whole.shift
    second = Affine(whole.mul, whole.offset + rounding, whole.shift + 8)
    return {"out8": high, "low8": low, "second": second}


def input_integers(state: State, value: str) -> np.ndarray:
    """What linears read of a value on the calibration data, 8 or 16 bits."""
    found = state.integers[narrow_name(value)]
    if value in state.halved:
        found = BYTE * found + state.integers[low_name(value)]
    return found


def emit_passes(
    state: State, op: QuantLinear, stage: LinearStage, gain: np.ndarray, bias: np.ndarray
) -> None:
    """A linear that reads high bytes, as two that read the low bytes as well.

    gain, bias: of the first stage for the 16-bit input.
    """
    tensors, partial = state.graph.tensors, wide_name(f"{stage.out}.high")
    tensors[partial] = replace(tensors[wide_name(stage.out)], name=partial)
    first = make_affine(BYTE * gain, bias, op.place)
    state.emit(replace(op, first=first, second=None, out16=partial, out8=None))
    first = make_affine(gain, 0.0, op.place)
    low = low_name(stage.linear.x)
    state.emit(replace(op, x=low, first=first, residual=partial, residual_shift=0))
