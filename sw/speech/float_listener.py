"""Transcribing in float32, by the unmodified module: what integers are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sw.driver.session import Prediction
from sw.models.whisper import Speech
from sw.models.whisper_parts import cut_encoder
from sw.speech.audio import SECONDS, spectrogram
from sw.speech.listening import Listening
from sw.speech.writing import Heard

__all__ = ["FloatListener"]


class FloatListener(Listening):
    """Listens in float32. seconds: of a window, with the model's positions cut."""

    def __init__(self, model: Speech, seconds: int = SECONDS) -> None:
        super().__init__(model, seconds)
        self._encoder = cut_encoder(model.module.model.encoder, model.rows(seconds))

    def listen(self, samples: np.ndarray, heard: Heard) -> FloatText:
        features = torch.from_numpy(spectrogram(samples, seconds=self.seconds))[None]
        with torch.no_grad():
            return FloatText(self.model, self._encoder(features))

    def close(self, session: FloatText) -> None:
        pass


class FloatText:
    """A text that grows. remembered: what the encoder gave."""

    def __init__(self, model: Speech, remembered: Any) -> None:
        self.model, self.remembered = model, remembered
        self.reset()

    def reset(self) -> None:
        """Forget the text."""
        self._cache, self._position = None, 0

    @property
    def room(self) -> int:
        """Tokens for which there is room."""
        return self.model.module.config.max_target_positions - self._position

    def prefill(self, ids: Sequence[int]) -> Prediction:
        """Take some tokens: what follows the last one, all tokens that a text may have."""
        model = self.model
        with torch.no_grad():
            found = model.module(
                encoder_outputs=self.remembered,
                decoder_input_ids=torch.tensor([[*ids]]),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache, self._position = found.past_key_values, self._position + len(ids)
        logits = found.logits[0, -1].double()
        logits[list(model.suppressed)] = -torch.inf
        values, tokens = (logits - logits.logsumexp(0)).sort(descending=True, stable=True)
        return Prediction(tokens.numpy()[None], values.numpy()[None])
