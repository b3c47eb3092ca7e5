"""Sentence embeddings on a device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.quantise import QuantOptions, given_formats
from sw.driver import Device
from sw.models import minilm
from sw.models.encoder import Encoder, Step, silent

__all__ = ["Embedder", "Embedding"]


@dataclass(frozen=True)
class Embedding:
    """Result for one text. counters: of the device, its share of a run (`Encoding`); without cycles
    on the golden device."""

    text: str
    tokens: int
    embedding: np.ndarray
    counters: dict[str, Any]


class Embedder(Encoder):
    """all-MiniLM-L6-v2 on an accelerator of one configuration.

    Parameters
    ----------
    config, step: as of `Encoder`.
    weights: file of other weights, see `minilm.load_module`.
    """

    title = "all-MiniLM-L6-v2"
    sources = ("sw/models",)
    longest = minilm.MAX_TOKENS

    def __init__(
        self,
        config: str | AcceleratorConfig = "base",
        step: Step = silent,
        weights: str | None = None,
    ) -> None:
        super().__init__(config, step)
        self._weights = weights
        self.name = "minilm"
        if weights is not None:
            minilm.load_module(weights)
            self.name += f"-{hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]}"
            if self.config.sparse:  # what is 2:4 stays so
                self.name += "-sparse"

    def exact(self) -> FloatGraph:
        return minilm.float_graph(weights=self._weights)

    def calibration(self) -> list[dict[str, np.ndarray]]:
        return minilm.calibration()

    def options(self, exact: FloatGraph) -> QuantOptions:
        return QuantOptions(formats=given_formats(exact, sparse=self.config.sparse, int4=False))

    def embed(self, texts: Sequence[str], device: Device) -> list[Embedding]:
        """Embed texts, several in a run. Raises `CompileError` for a text that is too long."""
        encoded = self.encode(minilm.tokenise(texts), device, "texts")
        return [
            Embedding(text, len(found.rows), minilm.pool(found.rows), found.counters)
            for text, found in zip(texts, encoded, strict=True)
        ]
