"""Choosing tokens among the likeliest ones, and accepting drafts of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.isa import SELECTED
from sw.compiler.errors import InputError
from sw.driver.session import Prediction

__all__ = ["Choices", "Sampler"]


@dataclass(frozen=True)
class Choices:
    """A distribution over tokens.

    tokens: [n], different ones. chances: [n], from 0 on, that add up to 1.
    """

    tokens: NDArray[np.int64]
    chances: NDArray[np.float64]

    @classmethod
    def only(cls, token: int) -> Choices:
        """This token and no other."""
        return cls(np.array([token]), np.ones(1))

    def chance(self, token: int) -> float:
        """Of a token; 0 for those that are not among them."""
        return float(self.chances[self.tokens == token].sum())

    def beyond(self, other: Choices) -> Choices:
        """How much likelier tokens are here than there, so that it adds up to 1: what a token is
        drawn from whose draft from `other` was rejected."""
        there = np.array([other.chance(int(token)) for token in self.tokens])
        more = np.maximum(self.chances - there, 0)
        total = more.sum()
        return Choices(self.tokens, more / total) if total > 0 else self


@dataclass
class Sampler:
    """Chooses the next token among the likeliest ones.

    temperature: 0 takes the likeliest; else probabilities are raised to 1 / temperature. top_k: how
    many are looked at, at most 8. seed: of the choice.
    """

    temperature: float = 0.0
    top_k: int = SELECTED
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= SELECTED:
            raise InputError(f"top-k {self.top_k}: the machine selects 1 to {SELECTED} tokens")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature {self.temperature} is no number from 0 on")
        self._rng = np.random.default_rng(self.seed)

    def choices(self, prediction: Prediction, row: int = -1) -> Choices:
        """What the token behind a row of `prediction` is drawn from."""
        tokens = prediction.tokens[row, : self.top_k]
        if self.temperature == 0:
            return Choices.only(int(tokens[0]))
        logits = prediction.log_probabilities[row, : self.top_k] / self.temperature
        weights = np.where(tokens >= 0, np.exp(logits - logits.max()), 0)
        return Choices(tokens, weights / weights.sum())

    def draw(self, choices: Choices) -> int:
        """A token of a distribution."""
        if len(choices.tokens) == 1:
            return int(choices.tokens[0])
        return int(self._rng.choice(choices.tokens, p=choices.chances))

    def choose(self, prediction: Prediction) -> int:
        """A token that follows the last one of `prediction`."""
        return self.draw(self.choices(prediction))

    def accepts(self, token: int, drafted: Choices, wanted: Choices) -> bool:
        """Whether a token that was drawn from `drafted` will do for one of `wanted`.

        With probability `wanted / drafted` of the token, 1 at most. Where it will not, one of
        `wanted.beyond(drafted)` takes its place; tokens then follow `wanted` exactly [Leviathan et
        al., Fast Inference from Transformers via Speculative Decoding, 2023].
        """
        ratio = wanted.chance(token) / drafted.chance(token)
        return ratio >= 1 or bool(self._rng.random() < ratio)
