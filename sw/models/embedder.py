"""Sentence embeddings on a device: quantised once, lowered for each length, both cached."""

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
    """Result for one text. counters: of the device; empty on the golden device."""

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
        """Embed texts one after another. Raises `CompileError` for a text that is too long."""
        token_lists = minilm.tokenise(texts)
        programs = {n: self.program(n) for n in sorted({len(ids) for ids in token_lists})}
        results = []
        update = self._step(f"Running {len(texts)} texts on the {self.config.name} accelerator")
        for number, (text, ids) in enumerate(zip(texts, token_lists, strict=True)):
            update(number, len(texts))
            outputs = device.load(programs[len(ids)])(ids[None])
            hidden = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
            embedding = minilm.pool(hidden.reshape(len(ids), -1))
            results.append(Embedding(text, len(ids), embedding, device.counters()))
        update(len(texts), len(texts))
        return results
