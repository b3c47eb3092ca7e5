"""How sure a model is of its own answer, and from where on to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sw.compiler.errors import InputError

__all__ = [
    "TESTS",
    "Nearest",
    "Test",
    "calibrate",
    "check_agreement",
    "check_threshold",
    "doubted",
    "log_probabilities",
    "self_test",
]

Test = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From log-probabilities [..., n], the likeliest first, to confidences [...] from 0 to 1."""


def _margin(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - p2 / p1: of logits alone, whatever they are normalised by; 0 if two are equal."""
    return -np.expm1(logs[..., 1] - logs[..., 0])


def _probability(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """p1, as the model says it."""
    return np.exp(logs[..., 0])


def _entropy(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - H / log n of the n outputs that there are, taken for all."""
    chances = np.exp(logs - logs[..., :1])
    chances /= chances.sum(axis=-1, keepdims=True)
    nats = -(chances * np.log(np.maximum(chances, 1e-300))).sum(axis=-1)
    return 1 - nats / math.log(logs.shape[-1])


TESTS: dict[str, Test] = {"margin": _margin, "probability": _probability, "entropy": _entropy}
"""By name. A `Test` may be any other function."""


def self_test(name: str) -> Test:
    """A test by its name. Raises `InputError` for another one."""
    if name not in TESTS:
        raise InputError(f"test {name!r}: there are {', '.join(TESTS)}")
    return TESTS[name]


def log_probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Of all logits of a row, in nats, the likeliest first: [..., n]. Raises `InputError` where
    there is nothing to choose from."""
    values = np.asarray(logits, np.float64)
    if values.ndim == 0 or values.shape[-1] < 2:
        raise InputError(
            "a program that gives a single number for each row has no self-test: it takes two "
            "logits to tell how sure it is"
        )
    logs = values - values.max(axis=-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    return -np.sort(-logs, axis=-1)


def check_threshold(threshold: float) -> None:
    """Raises `InputError` for one that is no confidence."""
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold}: a number from 0 (never the large one) to 1")


def check_agreement(agreement: float) -> None:
    """Raises `InputError` for one that is no share above 0."""
    if not 0 < agreement <= 1:
        raise InputError(f"agreement {agreement}: a share above 0, at most 1")


def doubted(confidence: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Whether an answer is not believed: below the threshold. 0 believes all, 1 none."""
    return (np.asarray(confidence) < threshold) | (threshold == 1)


def calibrate(
    confidence: ArrayLike, wrong: ArrayLike, agreement: float, of: ArrayLike = 1
) -> float:
    """The least threshold with which answers agree with the large model's as often as wanted.

    confidence: [answers], of the small model. wrong: [answers], what of each is not the large
    model's: 0 or 1, or a number `of` so many. agreement: wanted share of what agrees, above 0.

    What is doubted agrees. One thing more is taken for wrong than was seen, so that answers that
    calibration has not seen agree as often, on average [Angelopoulos et al., Conformal Risk
    Control, 2022]. Where even that is too much, 1: always the large model. Raises `InputError`.
    """
    check_agreement(agreement)
    sure, wrong = np.asarray(confidence, np.float64), np.asarray(wrong)
    total = np.broadcast_to(of, sure.shape).sum()
    order = np.argsort(sure)
    left = wrong.sum() - np.concatenate([[0], np.cumsum(wrong[order])])  # if so many are doubted
    places = np.flatnonzero((left + 1) / (total + 1) <= 1 - agreement)
    if not len(places) or places[0] == len(sure):
        return 1.0
    if places[0] == 0:
        return 0.0
    # All that are as sure as the last one doubted are doubted, too.
    return float(np.nextafter(sure[order[places[0] - 1]], 1))


class Nearest:
    """The self-test of embedders: how much nearer the nearest of some vectors is than the second.

    vectors: [n, size], two or more, of unit length, by the same embedder.
    """

    def __init__(self, vectors: NDArray[np.float64]):
        if len(vectors) < 2:
            raise InputError(
                f"{len(vectors)} vectors to choose from: a self-test compares the nearest two"
            )
        self.vectors = vectors

    def __call__(
        self, embedding: NDArray[np.float64], itself: int | None = None
    ) -> tuple[int, float]:
        """The nearest to an embedding of unit length, and the difference of its cosine and that of
        the second, 1 at most. itself: the one that is the embedding, and does not count."""
        likeness = self.vectors @ embedding
        if itself is not None:
            likeness[itself] = -np.inf
        second, first = np.argsort(likeness)[-2:]
        return int(first), float(min(likeness[first] - likeness[second], 1))
