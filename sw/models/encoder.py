"""An encoder for a device: quantised once, lowered for each length, both cached; inputs of all
lengths share runs."""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw.config import AcceleratorConfig, get_config
from sim.cache import kept, source_digest
from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import QuantOptions, quantise
from sw.driver import Device, open_device
from sw.models.packs import CANDIDATES, choose_rows, packs, shares

__all__ = ["Encoder", "Encoding", "Step", "silent"]

Step = Callable[[str], Callable[[float, float], None]]
"""`step(text)` announces a long step and returns `update(done, total)`."""

Made = tuple[FloatGraph, list[dict[str, np.ndarray]], QuantOptions]
"""What is quantised: in float, on which batches, how."""


def silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


class Encoding(NamedTuple):
    """Of one input: its rows of the model's first output, and its share of what its run counted,
    by tokens (`sw.models.packs.shares`)."""

    rows: np.ndarray
    counters: dict[str, Any]


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
        self._packed = functools.lru_cache(maxsize=8)(self._lower_packed)

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
        self._check(tokens)

        def make(_work: Path) -> bytes:
            graph = with_shape(self.graph, 1, tokens)
            self._step(f"Lowering {self.title} for {tokens} tokens")
            return self.lower(graph)

        return Program.load(kept("programs", self.program_file(str(tokens)), make))

    def _check(self, tokens: int) -> None:
        if not 1 <= tokens <= self.longest:
            raise CompileError(f"{tokens} tokens: the model takes 1 to {self.longest}")

    def packed(self, lengths: Sequence[int]) -> Program:
        """The program for several inputs in one run. Not kept: such lengths seldom come again,
        and the file of a program is large. Raises `CompileError` as `program` does."""
        for tokens in lengths:
            self._check(tokens)
        return self._packed(tuple(lengths))

    def _lower_packed(self, lengths: tuple[int, ...]) -> Program:
        return lower(with_lengths(self.graph, lengths), self.config)

    def runs(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which inputs share a run, by their places in `lengths`: see `sw.models.packs`."""
        few = sum(lengths) <= CANDIDATES[0]
        return packs(lengths, CANDIDATES[0] if few else self.run_rows)

    @functools.cached_property
    def run_rows(self) -> int:
        """Tokens that should share a run, by the cost model of this configuration."""

        def make(_work: Path) -> bytes:
            self._step(f"How many tokens should share a run on {self.config.name} (once)")
            rows = choose_rows(lambda lengths: self.packed(lengths).estimated_cycles)
            return json.dumps(rows).encode()

        file = Path(self.program_file("rows", "sw/models/packs.py")).with_suffix(".json").name
        return json.loads(kept("programs", file, make).read_text(encoding="utf-8"))

    def encode(self, inputs: Sequence[np.ndarray], device: Device, what: str) -> list[Encoding]:
        """What the model gives for token numbers [tokens] each, several in a run. what: they are.

        Raises `CompileError` for one that is too long.
        """
        lengths = [len(ids) for ids in inputs]
        for tokens in lengths:
            self._check(tokens)
        found: dict[int, Encoding] = {}
        runs = self.runs(lengths)
        count = f"{len(inputs)} {what}" if len(inputs) != 1 else f"1 {what.removesuffix('s')}"
        update = self._step(f"Running {count} on the {self.config.name} accelerator")
        for run in runs:
            update(len(found), len(inputs))
            together = [lengths[place] for place in run]
            if len(run) > 1:
                program, given = self.packed(together), [inputs[place] for place in run]
            else:
                program, given = self.program(*together), inputs[run[0]][None]
            outputs = device.load(program)(given)
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            counters = shares(device.counters(), together)
            for place, rows, share in zip(run, first, counters, strict=True):
                found[place] = Encoding(np.asarray(rows), share)
        update(len(inputs), len(inputs))
        return [found[place] for place in range(len(inputs))]

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
