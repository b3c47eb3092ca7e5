"""Integer weights of one linear, its gains, and its bias corrected on the calibration data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.graph.operations import FloatLinear
from sw.compiler.quantise.compress import compress
from sw.compiler.quantise.given import given_weight
from sw.compiler.quantise.gptq import Factor, damped, gptq_round
from sw.compiler.quantise.grid import choose_grid
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.quantise.ranges import Range, round_weight, weighted_mean

__all__ = ["QuantisedWeight", "quantise_weight"]


@dataclass(frozen=True)
class QuantisedWeight:
    """`real result = gain * (x @ integers.T) + bias` for the integer input `x`.

    multipliers: of the groups of an INT4 format, [N, ceil(K/group)].
    """

    integers: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    multipliers: np.ndarray | None = None

    def take(self, channels: np.ndarray) -> QuantisedWeight:
        """These output channels, in this order."""
        multipliers = None if self.multipliers is None else self.multipliers[channels]
        return QuantisedWeight(
            self.integers[channels], self.gain[channels], self.bias[channels], multipliers
        )


def _fitted(
    weight: np.ndarray,
    scaled: np.ndarray,
    hessian: np.ndarray,
    data: np.ndarray,
    target: np.ndarray,
    residual_error: np.ndarray | None,
    damping: float,
) -> np.ndarray:
    """Weights for the inputs `data` whose results are nearest to those of float.

    Minimises `||data V^T - target W^T - residual_error||^2 + d |V - scaled|^2`; all of them
    weighted by rows and free of their means.
    """
    if len(weight) < weight.shape[1]:
        wanted = (target @ weight.T.astype(np.float32)).T @ data
    else:
        wanted = weight @ (target.T @ data)
    if residual_error is not None:
        wanted = wanted + residual_error.T @ data
    whole = damped(hessian, damping)
    added = whole[0, 0] - hessian[0, 0]
    return np.linalg.solve(whole, (wanted + added * scaled).T).T


def quantise_weight(
    linear: FloatLinear,
    format: WeightFormat,
    chosen: Range,
    x: np.ndarray,
    target: np.ndarray,
    residual_error: np.ndarray | None,
    row_weight: np.ndarray,
    options: QuantOptions,
) -> QuantisedWeight:
    """Weights of this format for the input range `chosen`.

    x: integers of the input on the calibration data, as executed. target: the float input.
    residual_error: error (float - executed) of what is added to the result.
    row_weight: how much the errors of each row count.
    """
    if linear.steps is not None:
        return QuantisedWeight(*given_weight(linear, format, chosen))
    weight = linear.weight.astype(np.float64)
    wide = weight if chosen.source is None else weight[:, chosen.source]
    scaled = wide * chosen.scale
    mean = weighted_mean(x, row_weight)
    root = np.sqrt(row_weight, dtype=np.float32)[:, None]

    def centred(values: np.ndarray) -> np.ndarray:
        average = weighted_mean(values, row_weight)
        return (values - average).astype(np.float32) * root

    # The bias takes up the mean, so only deviations from it count.
    data = (x - mean).astype(np.float32) * root
    hessian = data.T @ data if options.gptq else np.eye(len(mean))
    goal = scaled
    if options.compresses and options.least_squares:
        error = None if residual_error is None else centred(residual_error)
        goal = _fitted(weight, scaled, hessian, data, centred(target), error, options.fit_damping)
    multipliers = None
    if format == DENSE:
        grid = choose_grid(goal, DENSE, np.ones(len(mean)))
        steps = grid.steps
        if options.gptq:
            integers = gptq_round(goal, grid, Factor.of(hessian, options.damping))
        else:
            integers = round_weight(goal, steps)
    else:
        integers, steps, multipliers = compress(wide, scaled, goal, hessian, format, options)
    bias = np.zeros(len(steps)) if linear.bias is None else linear.bias.astype(np.float64)
    if options.bias_correction:
        bias = bias + weight @ weighted_mean(target, row_weight)
        bias = bias - steps * (integers @ mean)
        if residual_error is not None:
            bias = bias + weighted_mean(residual_error, row_weight)
    else:
        bias = bias + wide @ chosen.centre
    return QuantisedWeight(integers.astype(np.int8), steps, bias, multipliers)
