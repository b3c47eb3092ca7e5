"""A language model that computes what follows a text once, however often sessions come to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hw.isa import SELECTED
from sw.driver.decoder import LoadedDecoder
from sw.driver.session import Prediction, Session

__all__ = ["Recalled"]


class Recalled(LoadedDecoder):
    """Stands for a model where the same texts are decoded in several ways, and passes are counted.

    What follows a text does not depend on the passes that read it (docs/decoding.md). So a session
    of the model's own computes it, when it is first asked for, up to 8 tokens at once: where
    `texts` has one that goes on from there, its next tokens are tried as well. What reads only is
    not executed at all.

    texts: of all sessions of this model and of others that are given the same list.
    """

    def __init__(self, model: LoadedDecoder, texts: list[list[int]]):
        super().__init__(model.device, model.program)
        self.computed = 0  # rows
        self._texts = texts
        self._text_of: WeakKeyDictionary[Session, list[int]] = WeakKeyDictionary()
        self._known: dict[bytes, tuple[NDArray, NDArray]] = {}
        self._session = model.session()
        self._held = [*model.program.prefix]

    def add(self, session: Session) -> Session:
        text = [*self.program.prefix]
        assert session.position == len(text)  # new: forks are not followed
        self._texts.append(text)
        self._text_of[session] = text
        return super().add(session)

    def run(
        self,
        session: Session,
        ids: NDArray[np.int64],
        progress: Callable[[int], None] | None = None,
        *,
        reading: bool = False,
        rows: int | None = None,
    ) -> Prediction | None:
        text = self._text_of[session]
        text[session.position :] = map(int, ids)
        if reading:
            return None
        entry = self.program.entries[rows or len(ids)]
        first = 0 if entry.selected == entry.tokens else len(ids) - 1
        ends = range(session.position + 1 + first, session.position + 1 + len(ids))
        found = [self._behind(text[:end], text) for end in ends]
        tokens, logs = (np.stack(column) for column in zip(*found, strict=True))
        return Prediction(tokens, logs)

    def _behind(self, begin: list[int], text: Sequence[int]) -> tuple[NDArray, NDArray]:
        """What the model predicts behind the beginning of a text: tokens, log-probabilities."""
        if _key(begin) not in self._known:
            ahead = [t for t in self._texts if len(t) > len(text) and t[: len(text)] == text]
            self._compute(max(ahead, key=len, default=text), len(begin) - 1)
        return self._known[_key(begin)]

    def _compute(self, text: Sequence[int], first: int) -> None:
        """What is behind token `first` of a text, and behind some of those that follow."""
        session, held = self._session, self._held
        pairs = zip(held, text, strict=False)
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(held), len(text)))
        session.rewind(min(same, first))
        if session.position < first:
            session.read(text[session.position : first])
        part = text[first : first + SELECTED]
        prediction = session.verify(part)
        self.computed += len(part)
        held[:] = text[: first + len(part)]
        for n, row in enumerate(zip(prediction.tokens, prediction.log_probabilities, strict=True)):
            self._known[_key(held[: first + n + 1])] = row


def _key(text: Sequence[int]) -> bytes:
    return np.array(text, np.int32).tobytes()
