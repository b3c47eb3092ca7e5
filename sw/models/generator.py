"""A language model for a device: quantised once, compiled once, both cached."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hw.config import AcceleratorConfig, get_config
from sim.cache import find, kept, source_digest
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.pruning import check_pruning, with_pruning
from sw.compiler.graph.window import RECENT, check_window, with_window
from sw.compiler.lower.decoder import lower_decoder, passes_for
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.quantise.decoder import DecoderOptions, Unfinished, quantise_decoder
from sw.compiler.quantise.decoder.options import decoder_weights
from sw.compiler.quantise.decoder.plan import plan_decoder
from sw.driver import Device, open_device
from sw.models import smollm2
from sw.models.language_model import LanguageModel

__all__ = ["SINK", "Generator"]

SINK = 4
"""First positions whose keys stay when a window moves on; attention falls back on them (Xiao et
al., arXiv 2309.17453)."""

Step = Callable[[str], Callable[[float, float], None]]
"""`step(text)` announces a long step and returns `update(done, total)`."""


def _silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


class Generator:
    """A language model on an accelerator of one configuration.

    Parameters
    ----------
    config: preset name or configuration. context: positions of a sequence; None: 2048, or as many
    as the model has. step: announces long steps (quantising takes minutes the first time). model:
    None is SmolLM2-135M-Instruct. bits: of the linears' weights, 8 or 4 (scaled, see
    `hw/sparse/formats.py`); those of the head have 8. window: keys that stay in a cache besides
    the first `SINK`; 0: all. evict: of those that gives its place up: "oldest", or "least".
    octaves: key blocks of less are left out (`with_pruning`); 0: none. inputs: bits of what linears
    behind norms read; 8 where that loses little, and with a rotated stream (`DecoderOptions`).
    """

    def __init__(
        self,
        config: str | AcceleratorConfig = "base",
        context: int | None = None,
        step: Step = _silent,
        model: LanguageModel | None = None,
        bits: int = 8,
        window: int = 0,
        evict: str = "oldest",
        octaves: int = 0,
        inputs: int = 16,
    ):
        self.config, self._step = get_config(config), step
        if not self.config.decoder:
            raise CompileError(
                f"configuration {self.config.name!r} has no language models: it needs decoder=True"
            )
        self.model = model or smollm2.load()
        self.context = self.model.context(context)
        weights = decoder_weights(bits, self.config)
        self._options = DecoderOptions(weights=weights, inputs=inputs, rotate=inputs == 8)
        stored = "" if bits == 8 else f"-q{bits}-{self.config.rows}"
        stored += "" if inputs == 16 else f"-i{inputs}"
        self._name = f"decoder-{self.model.checkpoint.digest[:16]}-{self.context}{stored}"
        self.window, self.evict = window, evict
        check_window(self.context, len(self.model.prefix), window, SINK, self._recent)
        self.octaves = octaves
        if octaves:
            check_pruning(octaves, window)
            if not self.config.prune:
                raise CompileError(
                    f"configuration {self.config.name!r} prunes no keys: it needs prune=True, as "
                    "'base+prune'"
                )
        self._exact: FloatGraph | None = None
        self._graph: QuantGraph | None = None

    @property
    def _recent(self) -> int:
        return RECENT if self.evict == "least" else 0

    @property
    def graph(self) -> QuantGraph:
        """The quantised model, with all keys."""
        if self._graph is None:
            self._graph = load_graph(kept("models", self._graph_file, self._quantise))
            self._unfinished.remove()
        return self._graph

    @property
    def _graph_file(self) -> str:
        rooms = ("sw/compiler/capture", "sw/compiler/graph", "sw/compiler/quantise")
        key = source_digest("hw/vector", "hw/softmax", *rooms, "sw/models")
        return f"{self._name}-{key}-{GRAPH_VERSION}.safetensors"

    @functools.cached_property
    def _unfinished(self) -> Unfinished:
        return Unfinished("models", f"unfinished-{self._graph_file}")

    @property
    def _is_quantised(self) -> bool:
        return find("models", self._graph_file) is not None

    def check(self) -> None:
        """Raises `CompileError` for a model that cannot be compiled, before it is quantised."""
        if self._exact is None and not self._is_quantised:
            self._step(f"Reading {self.model.name}")
            self.model.checkpoint.check(self.context)
            exact = capture_decoder(self.model.checkpoint.module, context=self.context)
            plan_decoder(exact, self.context)
            self._exact = exact

    def _quantise(self, _work: Path) -> bytes:
        self.check()
        exact, self._exact = self._exact, None
        assert exact is not None
        update = self._step(f"Quantising {self.model.name} (once; minutes, if it is large)")
        graph = quantise_decoder(
            exact,
            [ids[: self.context] for ids in self.model.calibration],
            context=self.context,
            prefix=self.model.prefix,
            options=self._options,
            progress=lambda _text, part: update(part, 1.0),
            unfinished=self._unfinished,
        )
        return graph_bytes(graph)

    @property
    def passes(self) -> tuple[int, ...]:
        """Numbers of tokens of a pass for which there are programs, unless others are wanted."""
        return passes_for(self._options.weights)

    def program(self, passes: Sequence[int] | None = None) -> DecoderProgram:
        """The compiled model, for passes of these numbers of tokens."""
        passes = self.passes if passes is None else passes
        key = source_digest("hw", "sw/compiler", "sw/models")
        sizes = "-".join(map(str, passes))
        machine = f"{self.config.fingerprint():08x}-{self.config.memory_rate}"
        stays = f"-w{self.window}-{self.evict}" if self.window else ""
        stays += f"-p{self.octaves}" if self.octaves else ""
        name = f"{self._name}{stays}-{sizes}-{machine}-{key}.safetensors"

        def make(_work: Path) -> bytes:
            graph = self.graph
            if self.window:
                graph = with_window(graph, self.window, SINK, self._recent)
            if self.octaves:
                graph = with_pruning(graph, self.octaves, self.config.rows)
            self._step(f"Compiling the model for {self.config.name}")
            return lower_decoder(graph, self.config, passes).to_bytes()

        return DecoderProgram.load(kept("programs", name, make))

    def open(self, device: str, **options: Any) -> Device:
        """Open a device of this configuration, for a model that was checked.

        What its files say comes first, which takes seconds. Reading all of it takes minutes, and is
        done again the next time: a device that is not there is reported before that.
        """
        if not self._is_quantised:
            self.model.checkpoint.check(self.context)
        opened = open_device(device, config=self.config, **options)
        try:
            self.check()
        except BaseException:
            opened.close()
            raise
        return opened
