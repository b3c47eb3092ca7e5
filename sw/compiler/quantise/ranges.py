"""INT8 ranges of activations: a scale and a centre for each channel.

A channel's window is what its 256 levels cover. Cutting a window short lets rare values
saturate and makes the steps finer for all others; moving a channel's scale up makes its weights
larger and its steps coarser (SmoothQuant). Both are chosen by the error that is predicted for
the results of the linears that read the activation `x` [rows, K] with weights `W` [N, K]:

    rounding of x:  sum_c |W_c|^2 mean((x_c - quantised x_c)^2)
    rounding of W:  sum_n (max_c |W_nc| s_c / 127)^2 / 12 * sum_c d_c / s_c^2

with `d_c` the variance of channel c that the channels rounded after it cannot explain, which
is what GPTQ leaves of a weight's rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sw.compiler.quantise.options import QuantOptions

__all__ = ["LEVELS", "Range", "round_weight", "search_range", "windows"]

LEVELS = 127.0
STEPS = 255.0
FOLD_ROWS = 64
"""Neighbouring rows (mostly of one text) that are judged together."""


@dataclass(frozen=True)
class Range:
    """real = scale * integer + centre, per channel."""

    scale: np.ndarray
    centre: np.ndarray


def round_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Nearest INT8 weights (as float) for a scale per output channel."""
    return np.clip(np.rint(weight / scale[:, None]), -LEVELS, LEVELS)


def sample(count: int, most: int) -> np.ndarray:
    """Evenly spaced row numbers."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def windows(
    x: np.ndarray, row_weight: np.ndarray, options: QuantOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of each channel, float64: its range on the data, times a fraction.

    A fraction is judged by the squared error on rows that did not set the range, so it is
    above 1 where the range is still growing with the data, and below where few values are far
    from all others.
    """
    rows = sample(len(x), options.search_rows)
    part, weight = x[rows], row_weight[rows, None]
    fold = (np.arange(len(rows)) // FOLD_ROWS) % 2 == 0
    if fold.all():
        fold = np.arange(len(rows)) % 2 == 0
    middle = np.median(part, axis=0)
    error = np.zeros((len(options.clips), x.shape[1]))
    for seen, other in ((fold, ~fold), (~fold, fold)):
        if not seen.any() or not other.any():
            continue
        low, high = part[seen].min(axis=0), part[seen].max(axis=0)
        for number, fraction in enumerate(options.clips):
            bottom = middle - (middle - low) * fraction
            top = middle + (high - middle) * fraction
            step = (top - bottom) / STEPS
            lost = np.clip(part[other], bottom, top)
            lost -= part[other]  # what saturation loses; the rest rounds evenly
            error[number] += (lost * lost * weight[other]).mean(axis=0) + step * step / 12
    fraction = np.array(options.clips)[error.argmin(axis=0)]
    low, high = x.min(axis=0), x.max(axis=0)
    return middle - (middle - low) * fraction, middle + (high - middle) * fraction


def _unexplained(x: np.ndarray, row_weight: np.ndarray, damping: float) -> np.ndarray:
    """Variance of each channel that later ones, in order of falling variance, do not explain."""
    mean = np.average(x, axis=0, weights=row_weight)
    centred = (x - mean) * np.sqrt(row_weight)[:, None]
    covariance = (centred.T @ centred).astype(np.float64) / len(x)
    diagonal = np.diag(covariance).copy()
    covariance[np.diag_indices_from(covariance)] += damping * diagonal.mean() + 1e-12
    order = np.argsort(-diagonal, kind="stable")[::-1]
    factor = np.linalg.cholesky(covariance[np.ix_(order, order)])
    result = np.empty_like(diagonal)
    result[order] = np.diag(factor) ** 2
    return result


def search_range(
    x: np.ndarray, weights: list[np.ndarray], row_weight: np.ndarray, options: QuantOptions
) -> Range:
    """Best range of `x` for the linears with these weights.

    row_weight: how much the errors of each row count.
    """
    rows = sample(len(x), options.search_rows)
    low, high = windows(x, row_weight, options)
    floor = max(float((high - low).max()) * 1e-6, 1e-6)
    half, centre = np.maximum((high - low) / 2, floor), (low + high) / 2
    if not weights:
        return Range(half / LEVELS, centre)
    stacked = np.concatenate(weights).astype(np.float64)
    reach = np.maximum(np.abs(stacked).max(axis=0), 1e-9)
    column = (stacked**2).sum(axis=0)
    rest = _unexplained(x[rows], row_weight[rows], options.damping)
    best: tuple[float, np.ndarray] | None = None
    for alpha in options.alphas:
        shape = half**alpha / reach ** (1 - alpha)
        scale = shape * np.max(half / shape) * 2 / STEPS
        steps = np.abs(stacked * scale).max(axis=1) / LEVELS
        error = (column * scale**2).sum() / 12 + (steps**2).sum() / 12 * (rest / scale**2).sum()
        if best is None or error < best[0]:
            best = (error, scale)
    assert best is not None
    return Range(best[1], centre)
