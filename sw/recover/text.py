"""Batches of token numbers from texts, for all-MiniLM-L6-v2."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sw.models import minilm
from sw.models.corpus import made_up_texts

__all__ = ["PREFIX", "TextBatches", "exported_minilm", "single_texts"]

MADE_UP_SHARE = 0.35
LONGEST = 256
PREFIX = "model."
"""Of the module's parameters in the exported program."""


class TextBatches:
    """Batches of about `tokens` tokens: texts of nearly the same length, cut to the shortest.

    To every pass over `texts` new made-up sentences are added: the vocabulary of the texts is
    small.
    """

    def __init__(self, texts: Sequence[str], tokens: int, seed: int) -> None:
        self.texts = minilm.tokenise(texts)
        self.tokens, self.seed = tokens, seed
        self.words = minilm.vocabulary_words()

    def epoch(self, number: int) -> Iterator[list[tuple[Tensor, ...]]]:
        """Batches [texts, tokens] of one pass, in an order that depends on seed and number."""
        generator = random.Random(f"{self.seed}/{number}")
        count = round(len(self.texts) * MADE_UP_SHARE / (1 - MADE_UP_SHARE))
        extra = made_up_texts(count, self.words, generator.randrange(1 << 30))
        texts = self.texts + minilm.tokenise(extra)
        generator.shuffle(texts)
        texts.sort(key=len)
        batches, start = [], 0
        while start < len(texts):
            length = min(len(texts[start]), LONGEST)
            part = texts[start : start + max(1, self.tokens // length)]
            batches.append(part)
            start += len(part)
        generator.shuffle(batches)
        for part in batches:
            length = min(len(part[0]), LONGEST)
            yield [(torch.from_numpy(np.stack([_cut(ids, length) for ids in part])),)]


def _cut(ids: np.ndarray, length: int) -> np.ndarray:
    """The first tokens, and the last one, which ends the text."""
    return ids if len(ids) == length else np.concatenate([ids[: length - 1], ids[-1:]])


def single_texts(texts: Sequence[str]) -> list[tuple[Tensor, ...]]:
    """Each text as a batch of its own."""
    return [(torch.from_numpy(ids)[None],) for ids in minilm.tokenise(texts)]


class _Encoder(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.model = module

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids).last_hidden_state


def exported_minilm(weights: str | None = None) -> torch.export.ExportedProgram:
    """all-MiniLM-L6-v2 for any number of texts and tokens, without the pooler.

    weights: see `minilm.load_module`.
    """
    dims = {
        0: torch.export.Dim("texts", min=1, max=1024),
        1: torch.export.Dim("tokens", min=2, max=minilm.MAX_TOKENS),
    }
    example = torch.zeros(2, 16, dtype=torch.int64)
    return torch.export.export(
        _Encoder(minilm.load_module(weights)),
        (),
        {"input_ids": example},
        dynamic_shapes={"input_ids": dims},
        strict=False,
    )
