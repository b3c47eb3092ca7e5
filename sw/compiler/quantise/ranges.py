"""INT8 ranges of activations: a scale and a centre for each channel.

For the input `x` of linears with weights `W`, the channel scale is
`t * range(x_c)^alpha / weight(c)^(1-alpha)` (SmoothQuant: alpha moves the difficulty between
activations and weights), cut to a fraction `clip` of the largest. `alpha` and `clip` are chosen
by the error of the linears' results with both operands quantised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sw.compiler.quantise.options import QuantOptions

__all__ = ["Range", "channel_range", "round_weight", "search_range"]

LEVELS = 127.0


@dataclass(frozen=True)
class Range:
    """real = scale * integer + centre, per channel."""

    scale: np.ndarray
    centre: np.ndarray

    def quantise(self, x: np.ndarray) -> np.ndarray:
        """Integers as float32."""
        scaled = (x - self.centre.astype(np.float32)) * (1 / self.scale).astype(np.float32)
        return np.clip(np.rint(scaled), -LEVELS - 1, LEVELS)


def round_weight(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Nearest INT8 weights (as float) for a scale per output channel."""
    return np.clip(np.rint(weight / scale[:, None]), -LEVELS, LEVELS)


def channel_range(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(half range, centre) of each channel on the data."""
    low, high = x.min(axis=0), x.max(axis=0)
    centre = (low + high) / 2
    half = np.maximum((high - low) / 2, 1e-6)
    return np.maximum(half, half.max() * 1e-6), centre


def sample(x: np.ndarray, count: int) -> np.ndarray:
    """Evenly chosen rows."""
    if len(x) <= count:
        return x
    return x[np.linspace(0, len(x) - 1, count).astype(np.int64)]


def search_range(
    x: np.ndarray, weights: list[np.ndarray], options: QuantOptions
) -> tuple[Range, float]:
    """Best range of `x` for the linears with these weights, and its relative error."""
    half, centre = channel_range(x)
    rows = sample(x, options.search_rows)
    stacked = np.concatenate(weights) if weights else np.eye(x.shape[1], dtype=np.float32)
    reach = np.maximum(np.abs(stacked).max(axis=0), 1e-6)
    centred = rows - centre
    exact = centred @ stacked.T
    best: tuple[float, Range] | None = None
    for alpha in options.alphas:
        shape = half**alpha / reach ** (1 - alpha)
        shape *= np.max(half / shape) / LEVELS  # no channel saturates at clip 1
        for clip in options.clips:
            scale = clip * shape
            candidate = Range(scale.astype(np.float64), centre.astype(np.float64))
            error = _error(centred, candidate, stacked, exact)
            if best is None or error < best[0]:
                best = (error, candidate)
    assert best is not None
    return best[1], best[0] / max(float((exact**2).sum()), 1e-30)


def _error(centred: np.ndarray, chosen: Range, stacked: np.ndarray, exact: np.ndarray) -> float:
    scaled = stacked * chosen.scale.astype(np.float32)
    steps = np.maximum(np.abs(scaled).max(axis=1), 1e-12) / LEVELS
    integers = np.clip(np.rint(centred / chosen.scale.astype(np.float32)), -LEVELS - 1, LEVELS)
    result = (integers @ round_weight(scaled, steps).T) * steps
    return float(((result - exact) ** 2).sum())
