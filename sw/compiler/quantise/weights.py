"""INT8 weights of one linear, its gains, and its bias corrected on the calibration data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sw.compiler.graph import FloatLinear
from sw.compiler.quantise.gptq import gptq_round
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.quantise.ranges import LEVELS, Range, round_weight

__all__ = ["QuantisedWeight", "quantise_weight"]


@dataclass(frozen=True)
class QuantisedWeight:
    """`real result = gain * (x @ integers.T) + bias` for the INT8 input `x`."""

    integers: np.ndarray
    gain: np.ndarray
    bias: np.ndarray

    def take(self, channels: np.ndarray) -> QuantisedWeight:
        """These output channels, in this order."""
        return QuantisedWeight(self.integers[channels], self.gain[channels], self.bias[channels])


def quantise_weight(
    linear: FloatLinear,
    chosen: Range,
    x: np.ndarray,
    target: np.ndarray,
    residual_error: np.ndarray | None,
    row_weight: np.ndarray,
    options: QuantOptions,
) -> QuantisedWeight:
    """Weights for the input range `chosen`.

    x: integers of the input on the calibration data, as executed. target: the float input.
    residual_error: mean error (float - executed) of what is added to the result.
    row_weight: how much the errors of each row count.
    """
    weight = linear.weight.astype(np.float64)
    wide = weight if chosen.source is None else weight[:, chosen.source]
    scaled = wide * chosen.scale
    steps = np.maximum(np.abs(scaled).max(axis=1), 1e-12) / LEVELS
    mean = np.average(x, axis=0, weights=row_weight)
    if options.gptq:
        # The bias takes up the mean, so only deviations from it count.
        data = (x - mean).astype(np.float32) * np.sqrt(row_weight, dtype=np.float32)[:, None]
        integers = gptq_round(scaled, steps, data.T @ data, options.damping)
    else:
        integers = round_weight(scaled, steps)
    bias = np.zeros(len(steps)) if linear.bias is None else linear.bias.astype(np.float64)
    if options.bias_correction:
        bias = bias + weight @ np.average(target, axis=0, weights=row_weight)
        bias = bias - steps * (integers @ mean)
        if residual_error is not None:
            bias = bias + residual_error
    else:
        bias = bias + wide @ chosen.centre
    return QuantisedWeight(integers.astype(np.int8), steps, bias)
