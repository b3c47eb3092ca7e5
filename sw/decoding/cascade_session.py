"""A small model's sequence whose doubtful predictions are a large model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import SELECTED
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import Test, doubted
from sw.driver.session import Prediction, Session

__all__ = ["CascadeSession", "Doubt"]


@dataclass(frozen=True)
class Doubt:
    """When a prediction is not believed.

    test, threshold: as of a `Cascade`. sampler: a draft that it cannot choose ends what is tested.
    """

    test: Test
    threshold: float
    sampler: Sampler


class CascadeSession(Session):
    """Made by `Cascade.session`, of a new session of each model: a session of the small one, which
    reads everything. Where it doubts a prediction, the large one reads what it has not seen, and
    what that predicts takes its place, and those of other rows that it read in
    the same pass.

    Attributes
    ----------
    large: its session, never ahead of this one. confidences: of the small model's predictions, by
    position of the token behind which they are. asked: how often the large one was asked.
    """

    def __init__(self, small: Session, large: Session, doubt: Doubt):
        assert small.image is not None  # new, or a fork
        super().__init__(small.model, small.position, small.image)
        self.key_slots = small.key_slots
        small.close()
        self.model.add(self)
        self.large, self.doubt = large, doubt
        self.confidences: dict[int, float] = {}
        self.asked = 0
        self._text = [*self.model.program.prefix]

    @property
    def room(self) -> int:
        return min(super().room, self.large.model.program.context - self.position)

    def verifying(self, tokens: int) -> Any | None:
        return super().verifying(tokens) if tokens <= self.room else None

    def least_sure(self, begin: int) -> float:
        """The least confidence of the predictions behind the tokens from position `begin` on."""
        return min(self.confidences[n] for n in range(begin, self.position))

    def prefill(
        self, ids: Sequence[int], progress: Callable[[int, int], None] | None = None
    ) -> Prediction:
        return self._settled(ids, lambda: super(CascadeSession, self).prefill(ids, progress))

    def read(self, ids: Sequence[int]) -> None:
        begin = self.position
        super().read(ids)
        self._text[begin:] = map(int, ids)

    def step(self, token: int) -> Prediction:
        return self._settled([token], lambda: super(CascadeSession, self).step(token))

    def verify(self, ids: Sequence[int]) -> Prediction:
        return self._settled(ids, lambda: super(CascadeSession, self).verify(ids))

    def rewind(self, position: int) -> None:
        super().rewind(position)
        self.large.rewind(min(self.large.position, position))

    def fork(self) -> CascadeSession:
        other = CascadeSession(super().fork(), self.large.fork(), self.doubt)
        other._text, other.confidences = [*self._text], {**self.confidences}
        return other

    def close(self) -> None:
        super().close()
        self.large.close()

    # --- how ------------------------------------------------------------------------------------

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int64]:
        self.large.model.program.check(self.position, ids)  # its context may be the shorter one
        return super()._checked(ids)

    def _settled(self, ids: Sequence[int], predict: Callable[[], Prediction]) -> Prediction:
        """What the small model predicts, or the large one. If either fails, both are where they
        were."""
        begin = self.position
        try:
            prediction = predict()
            self._text[begin:] = map(int, ids)
            first = self.position - len(prediction.tokens)
            sure = self.doubt.test(prediction.log_probabilities)
            self.confidences.update(zip(range(first, self.position), map(float, sure), strict=True))
            return self._tested(prediction, first, sure)
        except BaseException:
            self.position = begin
            self.large.position = min(self.large.position, begin)
            raise

    def _tested(self, prediction: Prediction, first: int, sure: NDArray[np.float64]) -> Prediction:
        """The prediction behind positions `first`.. with all rows that may matter believed, or the
        large model's."""
        for row, position in enumerate(range(first, self.position)):
            if doubted(sure[row], self.doubt.threshold) and self.large.position <= position:
                prediction = self._taken_over(prediction, first, position)
            choices = self.doubt.sampler.choices(prediction, row)
            if position + 1 < self.position and not choices.chance(self._text[position + 1]):
                break
        return prediction

    def _taken_over(self, prediction: Prediction, first: int, doubtful: int) -> Prediction:
        """The prediction behind positions `first`.., with that behind `doubtful` and as many others
        as come with it from the large model."""
        large = self.large
        unseen = doubtful + 1 - large.position
        behind = (unseen - 1) // SELECTED * SELECTED  # the rest is one pass that predicts
        if behind:
            large.read(self._text[large.position : large.position + behind])
        begin, count = large.position, unseen - behind
        more = min(SELECTED, self.position - begin)  # rows behind it cost next to nothing
        if large.verifying(more) is not None:
            count = more
        found = large.verify(self._text[begin : begin + count])
        self.asked += 1
        into = slice(max(begin, first) - first, begin + count - first)
        part = slice(max(begin, first) - begin, count)
        tokens, logs = prediction.tokens.copy(), prediction.log_probabilities.copy()
        tokens[into], logs[into] = found.tokens[part], found.log_probabilities[part]
        return Prediction(tokens, logs)
