"""INT8 ranges of activations: a scale and a centre for each channel.

A channel's window is what its 256 levels cover. Cutting a window short lets rare values
saturate and makes the steps finer for all others; moving a channel's scale up makes its weights
larger and its steps coarser (SmoothQuant). Both are chosen by the error that is predicted for
the results of the linears that read the activation `x` [rows, K] with weights `W` [N, K]:

    rounding of x:  sum_c |W_c|^2 mean((x_c - quantised x_c)^2)
    rounding of W:  sum_n (max_c |W_nc| s_c / 127)^2 / 12 * sum_c d_c / s_c^2

with `d_c` the variance of channel c that the channels rounded after it cannot explain, which
is what GPTQ leaves of a weight's rounding error.

A few channels of a feed-forward network reach values that are ten times those of all others.
Such a channel may be computed several times with adjoining windows: each copy saturates where
the next one begins, so their sum is the value, in finer steps than one window has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import WeightFormat
from sw.compiler.quantise.options import QuantOptions

__all__ = ["LEVELS", "Range", "round_weight", "search_range", "weighted_mean", "windows"]

LEVELS = 127.0
LEVELS_INT4 = 7.5
STEPS = 255.0
FOLDS = 4
"""Runs of rows, alternately of the two halves: calibration data of one kind stay together."""
BLOCK_ROWS = 128
NEARLY = 1.1
"""Errors within this factor count as equal."""


@dataclass(frozen=True)
class Range:
    """real = scale * integer + centre, per channel.

    Attributes
    ----------
    source: the channel that each one is a copy of, or None: there are no copies.
    middle: what integer 0 stands for when a channel is quantised; `centre`, but for copies,
        whose values add up.
    """

    scale: np.ndarray
    centre: np.ndarray
    source: np.ndarray | None = None
    middle: np.ndarray | None = None

    @property
    def copied(self) -> int:
        """How many channels are copies."""
        return 0 if self.source is None else len(self.source) - int(self.source.max()) - 1

    @property
    def zero(self) -> np.ndarray:
        return self.centre if self.middle is None else self.middle


def round_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Nearest INT8 weights (as float) for a scale per output channel."""
    return np.clip(np.rint(weight / scale[:, None]), -LEVELS, LEVELS)


def sample(count: int, most: int) -> np.ndarray:
    """Evenly spaced row numbers."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def row_blocks(count: int) -> Iterator[slice]:
    """All rows, in parts that stay in a cache while something is computed from them."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, count, BLOCK_ROWS))


def weighted_mean(x: np.ndarray, row_weight: np.ndarray) -> np.ndarray:
    """Mean of each column in float64, rows counting as `row_weight` says."""
    even = bool((row_weight == 1).all())
    total = np.zeros((1, x.shape[1]))
    for block in row_blocks(len(x)):
        part = x[block].astype(np.float64) if even else x[block] * row_weight[block, None]
        total[0] = np.concatenate([total, part]).sum(axis=0)  # in the order of the rows
    return total[0] / (len(x) if even else row_weight.sum())


def windows(
    x: np.ndarray,
    row_weight: np.ndarray,
    column: np.ndarray,
    options: QuantOptions,
    lowest: float = -np.inf,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, squared error) of each channel: its range on the data, times a fraction.

    A fraction is judged by the squared error on rows that did not set the range. One channel
    alone says little about that, so all share the one that is best together, weighted by
    `column`, or a wider one that is nearly as good: data of another kind reach further. For the
    same reason no window is much narrower than the median one: a channel that the calibration
    data hardly move may be at home in other texts.

    lowest: no value can be below.
    """
    rows = sample(len(x), options.search_rows)
    part, weight = x[rows], row_weight[rows, None]
    fold = (np.arange(len(rows)) * FOLDS // len(rows)) % 2 == 0
    middle = np.median(np.ascontiguousarray(part.T), axis=1)  # of neighbours in memory
    low, high = x.min(axis=0), x.max(axis=0)

    def window(low: np.ndarray, high: np.ndarray, fraction: float):
        bottom = np.maximum(middle - (middle - low) * fraction, lowest)
        top = middle + (high - middle) * fraction
        missing = np.maximum(options.floor * np.median(top - bottom) - (top - bottom), 0)
        below = np.minimum(missing / 2, bottom - lowest)
        return bottom - below, top + missing - below

    errors = np.zeros((len(options.clips), x.shape[1]))
    for seen, other in ((fold, ~fold), (~fold, fold)):
        if not seen.any() or not other.any():
            continue
        values, counts = part[other], weight[other]
        least, most = part[seen].min(axis=0), part[seen].max(axis=0)
        for number, fraction in enumerate(options.clips):
            bottom, top = window(least, most, fraction)
            step = (top - bottom) / STEPS
            lost = _saturation(values, bottom, top, counts)
            errors[number] += lost / 2 + step * step / 24
    total = errors @ column
    chosen = int(np.flatnonzero(total <= NEARLY * total.min())[0])  # widest first
    bottom, top = window(low, high, options.clips[chosen])
    return bottom.astype(np.float64), top.astype(np.float64), errors[chosen]


def _saturation(
    x: np.ndarray, bottom: np.ndarray, top: np.ndarray, row_weight: np.ndarray
) -> np.ndarray:
    """Mean square of what windows cut off each channel; the rest rounds evenly."""
    total = np.zeros((1, x.shape[1]), np.result_type(x, row_weight))
    for block in row_blocks(len(x)):
        lost = np.clip(x[block], bottom, top)
        lost -= x[block]
        total[0] = np.concatenate([total, lost * lost * row_weight[block]]).sum(axis=0)
    return total[0] / len(x)


def _copies(span: np.ndarray, error: np.ndarray, column: np.ndarray, extra: int) -> np.ndarray:
    """Windows of each channel when `extra` copies go where they save most.

    span: whole range of a channel. error: squared error with one window. column: |W_c|^2.
    """
    count = np.ones(len(span), dtype=np.int64)
    now = error.copy()
    for _ in range(extra):
        after = (span / ((count + 1) * STEPS)) ** 2 / 12
        best = int(np.argmax(column * (now - after)))
        count[best] += 1
        now[best] = after[best]
    return count


def _unexplained(x: np.ndarray, row_weight: np.ndarray, damping: float) -> np.ndarray:
    """Variance of each channel that later ones, in order of falling variance, do not explain."""
    mean = weighted_mean(x, row_weight)
    centred = (x - mean) * np.sqrt(row_weight)[:, None]
    covariance = (centred.T @ centred).astype(np.float64) / len(x)
    diagonal = np.diag(covariance).copy()
    covariance[np.diag_indices_from(covariance)] += damping * diagonal.mean() + 1e-12
    order = np.argsort(-diagonal, kind="stable")[::-1]
    factor = np.linalg.cholesky(covariance[np.ix_(order, order)])
    result = np.empty_like(diagonal)
    result[order] = np.diag(factor) ** 2
    return result


def _squared_steps(weight: np.ndarray, format: WeightFormat) -> float:
    """Squared steps of the weights' levels, summed over outputs; of groups, their mean."""
    if format.bits == 8:
        return float(np.square(np.abs(weight).max(axis=1) / LEVELS).sum())
    size = format.group or weight.shape[1]
    starts = np.arange(0, weight.shape[1], size)
    reach = np.maximum.reduceat(np.abs(weight), starts, axis=1)
    return float(np.square(reach / LEVELS_INT4).mean(axis=1).sum())


def search_range(
    x: np.ndarray,
    weights: Sequence[tuple[np.ndarray, WeightFormat]],
    row_weight: np.ndarray,
    options: QuantOptions,
    extra: int = 0,
    lowest: float = -np.inf,
) -> Range:
    """Best range of `x` for the linears with these weights, stored in these formats.

    row_weight: how much the errors of each row count. extra: copies of channels to add.
    lowest: no value can be below. Integers that 8 bits hold, as those of pixels, stay as they are.
    """
    if weights and _are_bytes(x):
        middle = np.floor((x.min() + x.max() + 1) / 2)
        return Range(np.ones(x.shape[1]), np.full(x.shape[1], middle))
    rows = sample(len(x), options.search_rows)
    if weights:
        stacked = np.concatenate([weight for weight, _ in weights]).astype(np.float64)
    else:
        stacked = np.diag(1 / np.maximum(x[rows].std(axis=0, dtype=np.float64), 1e-9))
    column = (stacked**2).sum(axis=0)
    low, high, error = windows(x, row_weight, column, options, lowest)
    floor = max(float((high - low).max()) * 1e-6, 1e-6)
    if not weights:
        return Range(np.maximum(high - low, floor) / STEPS, (low + high) / 2)
    count = np.ones(x.shape[1], dtype=np.int64)
    if extra:
        count = _copies(high - low, error, column, extra)
    half, centre = np.maximum((high - low) / 2, floor) / count, (low + high) / 2
    reach = np.maximum(np.abs(stacked).max(axis=0), 1e-9)
    rest = _unexplained(x[rows], row_weight[rows], options.damping)
    best: tuple[float, np.ndarray] | None = None
    for alpha in options.alphas:
        shape = half**alpha / reach ** (1 - alpha)
        scale = shape * np.max(half / shape) * 2 / STEPS
        steps = sum(_squared_steps(weight * scale, format) for weight, format in weights)
        total = (column * scale**2).sum() / 12 + steps / 12 * (rest / scale**2).sum()
        if best is None or total < best[0]:
            best = (total, scale)
    assert best is not None
    if not extra:
        return Range(best[1], centre)
    return _adjoining(best[1], low, centre, count)


def _are_bytes(x: np.ndarray) -> bool:
    """Whether all values are integers, of a range that needs 8 bits and no more: then steps of 1
    are at most twice as wide as others would be, whatever comes."""
    if not (x[:1] == np.rint(x[:1])).all():  # nearly always
        return False
    return bool(STEPS / 2 < x.max() - x.min() <= STEPS and (x == np.rint(x)).all())


def _adjoining(scale: np.ndarray, low: np.ndarray, centre: np.ndarray, count: np.ndarray) -> Range:
    """Range with `count` adjoining windows for each channel; copies follow all channels."""
    more = np.concatenate([np.full(n - 1, c) for c, n in enumerate(count)]).astype(np.int64)
    source = np.concatenate([np.arange(len(count)), more])
    place = np.array([np.count_nonzero(source[:i] == c) for i, c in enumerate(source)])
    step = scale[source]
    bottom = low[source] + place * STEPS * step  # the lowest value of each window
    middle = np.where(count[source] > 1, bottom + (LEVELS + 1) * step, centre[source])
    # A copy's contribution begins at 0 where the window below it ends.
    return Range(step, middle - np.where(place > 0, bottom, 0), source, middle)
