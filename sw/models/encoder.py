"""An encoder for a device: quantised once, lowered for each length, both cached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, get_config
from sim.cache import kept, source_digest
from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import QuantOptions, quantise
from sw.driver import Device, open_device

__all__ = ["Encoder", "Step", "silent"]

Step = Callable[[str], Callable[[float, float], None]]
"""`step(text)` announces a long step and returns `update(done, total)`."""

Made = tuple[FloatGraph, list[dict[str, np.ndarray]], QuantOptions]
"""What is quantised: in float, on which batches, how."""


def silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


class Encoder(ABC):
    """A model on an accelerator of one configuration.

    Parameters
    ----------
    config: preset name or configuration. step: announces long steps (quantising takes a minute or
    more the first time).

    Members that each model gives
    -----------------------------
    title: for people. name: of its files in the cache. sources: files and folders of code on which
    its calibration depends, besides those of the compiler. longest: tokens of an input.
    """

    title: str
    longest: int
    name: str
    sources: tuple[str, ...]

    def __init__(self, config: str | AcceleratorConfig = "base", step: Step = silent) -> None:
        self.config, self._step = get_config(config), step
        self._graph: QuantGraph | None = None

    @abstractmethod
    def exact(self) -> FloatGraph:
        """The model in float."""

    @abstractmethod
    def calibration(self) -> list[dict[str, np.ndarray]]:
        """Batches of inputs by name."""

    def options(self, exact: FloatGraph) -> QuantOptions:
        """How the model is quantised."""
        return QuantOptions()

    @property
    def graph(self) -> QuantGraph:
        """The quantised model, for its longest input."""
        if self._graph is None:
            self._graph = self.quantised(self.name, self.title, self._made)
        return self._graph

    def _made(self) -> Made:
        exact = self.exact()
        return exact, self.calibration(), self.options(exact)

    def quantised(
        self, name: str, title: str, make: Callable[[], Made], *sources: str
    ) -> QuantGraph:
        """A part of the model, quantised once; name: of its file in the cache. sources: on which
        it depends besides the model's."""
        rooms = ("sw/compiler/capture", "sw/compiler/graph", "sw/compiler/quantise")
        key = source_digest("hw/vector", "hw/softmax", *rooms, *self.sources, *sources)

        def made(_work: Path) -> bytes:
            update = self._step(f"Quantising {title} (once, a few minutes)")
            return graph_bytes(quantise(*make(), progress=lambda _text, part: update(part, 1.0)))

        return load_graph(kept("models", f"{name}-{key}-{GRAPH_VERSION}.safetensors", made))

    def program(self, tokens: int) -> Program:
        """The program for one input of `tokens` tokens. Raises `CompileError` if it is too long."""
        if not 1 <= tokens <= self.longest:
            raise CompileError(f"{tokens} tokens: the model takes 1 to {self.longest}")

        def make(_work: Path) -> bytes:
            graph = with_shape(self.graph, 1, tokens)
            self._step(f"Lowering {self.title} for {tokens} tokens")
            return self.lower(graph)

        return Program.load(kept("programs", self.program_file(str(tokens)), make))

    def program_file(self, shape: str, *sources: str) -> str:
        """Name of a program in the cache. sources: on which it depends besides the model's."""
        key = source_digest("hw", "sw/compiler", *self.sources, *sources)
        machine = f"{self.config.fingerprint():08x}-{self.config.memory_rate}"
        return f"{self.name}-{shape}-{machine}-{key}.safetensors"

    def lower(self, graph: QuantGraph) -> bytes:
        """The program of a graph, as a file."""
        return lower(graph, self.config).to_bytes()

    def open(self, device: str, **options: Any) -> Device:
        """Open a device of this configuration."""
        return open_device(device, config=self.config, **options)
