"""Sentence embeddings on a device: quantised once, lowered for each length, both cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, get_config
from sim.cache import kept, source_digest
from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import QuantOptions, given_formats, quantise
from sw.driver import Device, open_device
from sw.models import minilm

__all__ = ["Embedder", "Embedding"]

Step = Callable[[str], Callable[[float, float], None]]
"""`step(text)` announces a long step and returns `update(done, total)`."""


def _silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


@dataclass(frozen=True)
class Embedding:
    """Result for one text. counters: of the device; empty on the golden device."""

    text: str
    tokens: int
    embedding: np.ndarray
    counters: dict[str, Any]


class Embedder:
    """all-MiniLM-L6-v2 on an accelerator of one configuration.

    Parameters
    ----------
    config: preset name or configuration.
    step: announces long steps (quantising takes minutes the first time).
    weights: file of other weights, see `minilm.load_module`.
    """

    def __init__(
        self,
        config: str | AcceleratorConfig = "base",
        step: Step = _silent,
        weights: str | None = None,
    ) -> None:
        self.config = get_config(config)
        self._step = step
        self._weights = weights
        self._model = "minilm"
        if weights is not None:
            minilm.load_module(weights)
            self._model += f"-{hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]}"
        self._graph: QuantGraph | None = None

    @property
    def graph(self) -> QuantGraph:
        """The quantised model for up to `minilm.MAX_TOKENS` tokens."""
        if self._graph is None:
            rooms = ("sw/compiler/capture", "sw/compiler/graph", "sw/compiler/quantise")
            key = source_digest("hw/vector", "hw/softmax", *rooms, "sw/models")
            name = f"{self._model}-{key}-{GRAPH_VERSION}"
            if self._weights and self.config.sparse:  # what is 2:4 stays so
                name += "-sparse"
            self._graph = load_graph(kept("models", f"{name}.safetensors", self._quantise))
        return self._graph

    def _quantise(self, _work: Path) -> bytes:
        update = self._step("Quantising all-MiniLM-L6-v2 (once, a few minutes)")
        exact = minilm.float_graph(weights=self._weights)
        formats = given_formats(exact, sparse=self.config.sparse, int4=False)
        graph = quantise(
            exact,
            minilm.calibration(),
            QuantOptions(formats=formats),
            progress=lambda _text, part: update(part, 1.0),
        )
        return graph_bytes(graph)

    def program(self, tokens: int) -> Program:
        """The program for one text of `tokens` tokens, [CLS] and [SEP] included."""
        if not 1 <= tokens <= minilm.MAX_TOKENS:
            raise CompileError(f"{tokens} tokens: the model takes 1 to {minilm.MAX_TOKENS}")
        key = source_digest("hw", "sw/compiler", "sw/models")
        machine = f"{self.config.fingerprint():08x}-{self.config.memory_rate}"
        name = f"{self._model}-{tokens}-{machine}-{key}.safetensors"

        def make(_work: Path) -> bytes:
            graph = with_shape(self.graph, 1, tokens)
            self._step(f"Lowering the model for {tokens} tokens")
            return lower(graph, self.config).to_bytes()

        return Program.load(kept("programs", name, make))

    def open(self, device: str, **options: Any) -> Device:
        """Open a device of this configuration."""
        return open_device(device, config=self.config, **options)

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
