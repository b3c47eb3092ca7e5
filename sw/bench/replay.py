"""A session that knows what its model would say: for counting passes without running them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from sw.driver.session import Prediction, Session

__all__ = ["Replay"]


class Replay(Session):
    """Takes only tokens of one text, or drafts behind them, and predicts the text's.

    text: that was decoded, with the prompt. end: the token that it predicts behind the text.
    """

    def __init__(self, program: Any, text: Sequence[int], end: int):
        model: Any = SimpleNamespace(program=program)
        super().__init__(model, len(program.prefix), [])
        self.text, self.end = list(text), end

    def _predict(self, tokens: Any, rows: int | None = None) -> Prediction:
        place = self.position + 1 + np.arange(len(tokens))
        self.position += len(tokens)
        known = [self.text[n] if n < len(self.text) else self.end for n in place]
        return Prediction(np.array(known)[:, None], np.zeros((len(tokens), 1)))

    def prefill(self, ids: Sequence[int], progress: Any = None) -> Prediction:
        self.position += len(ids) - 1
        return self._predict(ids[-1:])
