"""Encoders for pairs of cascades: all-MiniLM-L6-v2 and Rampart with linears in one format, or with
fewer layers."""

from __future__ import annotations

import torch

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.bench.fewer_layers import shortened
from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.quantise import QuantOptions
from sw.compiler.quantise.halves import possible_places
from sw.compiler.quantise.named import sites
from sw.models import minilm
from sw.models.embedder import Embedder
from sw.models.encoder import Step
from sw.models.tagger import Tagger

__all__ = ["ShortEmbedder", "StoredEmbedder", "StoredTagger", "file_name", "stored"]

SOURCES = ("sw/bench/cascade_models.py", "sw/bench/fewer_layers.py")
LABELS = 64
"""A linear with fewer outputs is a head: it keeps INT8."""


def stored(exact: FloatGraph, format: WeightFormat) -> QuantOptions:
    """All linears with `LABELS` outputs or more in a format; 16-bit inputs where they can be."""
    wide = format.inputs == 16
    places = possible_places(exact) if wide else sites(exact)
    large = [p for p in places if all(len(op.weight) >= LABELS for op in sites(exact)[p])]
    return QuantOptions(formats=dict.fromkeys(sorted(large), format))


class StoredEmbedder(Embedder):
    """all-MiniLM-L6-v2 with all linears that can be in one format."""

    sources = (*Embedder.sources, *SOURCES)

    def __init__(self, config: str | AcceleratorConfig, step: Step, format: WeightFormat) -> None:
        super().__init__(config, step)
        self.format, self.name = format, f"minilm-{file_name(format)}"
        self.title = f"all-MiniLM-L6-v2 in {format.name}"

    def options(self, exact: FloatGraph) -> QuantOptions:
        return stored(exact, self.format)


class StoredTagger(Tagger):
    """Rampart with all linears that can be, but the head, in one format."""

    sources = (*Tagger.sources, *SOURCES)

    def __init__(self, config: str | AcceleratorConfig, step: Step, format: WeightFormat) -> None:
        super().__init__(config, step)
        self.format, self.name = format, f"rampart-{file_name(format)}"
        self.title = f"Rampart in {format.name}"

    def options(self, exact: FloatGraph) -> QuantOptions:
        return stored(exact, self.format)


class ShortEmbedder(Embedder):
    """all-MiniLM-L6-v2 with some of its layers, see `shortened`, in INT8."""

    sources = (*Embedder.sources, *SOURCES)

    def __init__(self, config: str | AcceleratorConfig, step: Step, layers: int) -> None:
        super().__init__(config, step)
        self.layers, self.name = layers, f"minilm-{layers}-layers"
        self.title = f"all-MiniLM-L6-v2 with {layers} layers"

    def exact(self) -> FloatGraph:
        whole = minilm.load_module()
        texts = [torch.from_numpy(batch["input_ids"]) for batch in self.calibration()]
        update = self._step(f"Choosing {self.layers} layers")
        module, choice = shortened(whole, texts, self.layers, update)
        self._step(f"Layers {', '.join(map(str, choice.kept))} stay")
        ids = {"input_ids": torch.zeros(1, minilm.MAX_TOKENS, dtype=torch.int64)}
        return import_module(module, ids, outputs=("last_hidden_state",))


def file_name(format: WeightFormat) -> str:
    return format.name.replace(":", "of").replace("/", "x").replace(" ", "-")
