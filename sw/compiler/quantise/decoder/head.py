"""The head: weights whose steps are powers of two, so that sums need a shift only to be octaves."""

from __future__ import annotations

import math

import numpy as np

from hw.isa import SCORE_FRACTION_BITS
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import VALUE_FRACTION_BITS
from sw.compiler.graph.operations import QuantHead
from sw.compiler.quantise.decoder.linear import round_weight, too_large
from sw.compiler.quantise.decoder.plan import HeadStage
from sw.compiler.quantise.decoder.state import State
from sw.compiler.quantise.ranges import LEVELS

__all__ = ["quantise_head"]

LARGEST_SHIFT = 31 + SCORE_FRACTION_BITS
"""Of the commands that read the sums; finer steps gain nothing, whatever an output's weights."""

OUTPUTS = 4096
"""Rounded at once: bounds the memory of large vocabularies."""


def quantise_head(state: State, stage: HeadStage) -> None:
    """`logits * log2(e) = acc * 2^-shift`, an output's shift as large as INT8 weights allow."""
    linear = stage.op
    if linear.bias is not None and linear.bias.any():
        raise CompileError(f"the head at {linear.place} has a bias: the selector adds none")
    operand = state.operand(linear.x, centred=False)
    if operand.centre.any():
        raise CompileError(f"the head at {linear.place} reads no norm")
    integers = np.empty(linear.weight.shape, np.int8)
    shifts = np.empty(len(integers), np.int64)
    for start in range(0, len(integers), OUTPUTS):
        part = slice(start, start + OUTPUTS)
        scaled = linear.weight[part].astype(np.float64) * operand.unit * math.log2(math.e)
        reach = np.maximum(np.abs(scaled).max(axis=1), 2.0**-50)
        shift = np.floor(-np.log2(reach / LEVELS)).astype(np.int64)
        shift = np.minimum(shift, LARGEST_SHIFT)
        rounded = round_weight(scaled, 2.0**-shift, operand)
        coarser = too_large(rounded) > 1
        if coarser.any():
            shift[coarser] -= 1
            rounded[coarser] = round_weight(scaled[coarser], 2.0 ** -shift[coarser], operand)
        integers[part], shifts[part] = rounded, shift
    shifts[list(state.options.without)] = 0
    if shifts[shifts > 0].min(initial=VALUE_FRACTION_BITS) < VALUE_FRACTION_BITS:
        raise CompileError(
            f"logits of the head at {linear.place} are too large: sums of 32 bits would have less "
            f"than {VALUE_FRACTION_BITS} fraction bits"
        )
    state.emit(QuantHead(linear.x, integers, shifts, linear.name, linear.place))
