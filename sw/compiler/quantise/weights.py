"""Integer weights of one linear, its gains, and its bias corrected on the calibration data."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.graph.operations import FloatLinear
from sw.compiler.quantise.compress import compress
from sw.compiler.quantise.gptq import Factor, damped, gptq_round
from sw.compiler.quantise.grid import choose_grid
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.quantise.ranges import Range, round_weight, row_blocks, weighted_mean

__all__ = ["Inputs", "QuantisedWeight", "quantise_weight"]

UNSEEN = 32
"""Zeros in a row of which an output says that it does not see these inputs."""


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


class Inputs:
    """What linears read of one value on the calibration data, and what they share of it.

    Parameters
    ----------
    x: integers as executed [rows, K]. target: the float values. row_weight: how much the errors of
    each row count.

    Members
    -------
    mean, target_mean: of the columns. data: deviations from the mean, weighted [rows, K]: the bias
    takes up the mean, so they alone count. hessian: `data^T data`.
    """

    def __init__(self, x: np.ndarray, target: np.ndarray, row_weight: np.ndarray):
        self.target, self.row_weight = target, row_weight
        self.mean = weighted_mean(x, row_weight)
        self.target_mean = weighted_mean(target, row_weight)
        self.data = self.centred(x, self.mean)
        self._factors: dict[float, Factor] = {}

    def centred(self, values: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Weighted deviations of columns from their means."""
        result = np.empty(values.shape, np.float32)
        root = np.sqrt(self.row_weight, dtype=np.float32)[:, None]
        for block in row_blocks(len(values)):
            result[block] = values[block] - mean
            result[block] *= root[block]
        return result

    @functools.cached_property
    def hessian(self) -> np.ndarray:
        return self.data.T @ self.data

    @functools.cached_property
    def correlation(self) -> np.ndarray:
        """Of the float values with `data` [K of float, K]."""
        return self._goals.T @ self.data

    @functools.cached_property
    def _goals(self) -> np.ndarray:
        return self.centred(self.target, self.target_mean)

    def results(self, weight: np.ndarray) -> np.ndarray:
        """Correlation of the results of float weights [N, K of float] with `data`, [N, K]."""
        if len(weight) < weight.shape[1]:
            return (self._goals @ weight.T.astype(np.float32)).T @ self.data
        return weight @ self.correlation

    def factor(self, damping: float) -> Factor:
        """`Factor.of` the Hessian."""
        if damping not in self._factors:
            self._factors[damping] = Factor.of(self.hessian, damping)
        return self._factors[damping]


def _fitted(
    weight: np.ndarray,
    scaled: np.ndarray,
    hessian: np.ndarray,
    inputs: Inputs,
    residual_error: np.ndarray | None,
    damping: float,
) -> np.ndarray:
    """Weights for the inputs `data` whose results are nearest to those of float.

    Minimises `||data V^T - target W^T - residual_error||^2 + d |V - scaled|^2`; all of them
    weighted by rows and free of their means.
    """
    wanted = inputs.results(weight)
    if residual_error is not None:
        mean = weighted_mean(residual_error, inputs.row_weight)
        wanted = wanted + inputs.centred(residual_error, mean).T @ inputs.data
    whole = damped(hessian, damping)
    added = whole[0, 0] - hessian[0, 0]
    return np.linalg.solve(whole, (wanted + added * scaled).T).T


def connections(weight: np.ndarray) -> np.ndarray | None:
    """Which weights [N, K] may be other than 0; None: all.

    An output that has zeros in a row does not see these inputs at all, as a place of a convolution
    does not see all of a window. Rounding would make up for errors there, and cost products.
    """
    if weight.shape[1] < UNSEEN:
        return None
    zeros = np.lib.stride_tricks.sliding_window_view(weight == 0, UNSEEN, axis=1).all(axis=2)
    if not zeros.any():
        return None
    seen, places = np.ones(weight.shape, bool), weight.shape[1] - UNSEEN + 1
    for shift in range(UNSEEN):
        seen[:, shift : shift + places] &= ~zeros
    return seen


def quantise_weight(
    linear: FloatLinear,
    format: WeightFormat,
    chosen: Range,
    inputs: Inputs,
    residual_error: np.ndarray | None,
    options: QuantOptions,
) -> QuantisedWeight:
    """Weights of this format for the input range `chosen`.

    residual_error: error (float - executed) of what is added to the result.
    """
    weight = linear.weight.astype(np.float64)
    wide = weight if chosen.source is None else weight[:, chosen.source]
    scaled = wide * chosen.scale
    hessian = inputs.hessian if options.gptq else np.eye(len(inputs.mean))
    goal = scaled
    if options.compresses and options.least_squares:
        goal = _fitted(weight, scaled, hessian, inputs, residual_error, options.fit_damping)
    multipliers = None
    if format == DENSE:
        grid = choose_grid(goal, DENSE, np.ones(len(inputs.mean)))
        steps = grid.steps
        if options.gptq:
            factor = inputs.factor(options.damping)
            integers = gptq_round(goal, grid, factor, mask=connections(wide))
        else:
            integers = round_weight(goal, steps)
    else:
        integers, steps, multipliers = compress(wide, scaled, goal, hessian, format, options)
    bias = np.zeros(len(steps)) if linear.bias is None else linear.bias.astype(np.float64)
    if options.bias_correction:
        bias = bias + weight @ inputs.target_mean
        bias = bias - steps * (integers @ inputs.mean)
        if residual_error is not None:
            bias = bias + weighted_mean(residual_error, inputs.row_weight)
    else:
        bias = bias + wide @ chosen.centre
    return QuantisedWeight(integers.astype(np.int8), steps, bias, multipliers)
