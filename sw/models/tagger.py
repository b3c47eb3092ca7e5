"""Personal data in texts, found on a device."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sw.compiler.graph.operations import FloatGraph
from sw.compiler.graph.reference import from_integers, run_reference_rows
from sw.compiler.graph.rows import Rows
from sw.driver import Device
from sw.models import rampart
from sw.models.encoder import Encoder

__all__ = ["Tagged", "Tagger"]


@dataclass(frozen=True)
class Tagged:
    """Result for one text. tags: one for each of its tokens. counters: of the device, its windows'
    shares of their runs (`Encoding`) added up; without cycles on the golden device."""

    text: str
    tags: np.ndarray
    spans: list[rampart.Span]
    counters: Counter[str]

    @property
    def masked(self) -> str:
        """The text without its personal data."""
        return rampart.masked(self.text, self.spans)


class Tagger(Encoder):
    """Rampart on an accelerator of one configuration."""

    title = "Rampart"
    name = "rampart"
    longest = rampart.WINDOW
    sources = (
        "sw/models/rampart.py",
        "sw/models/onnx_file.py",
        "sw/models/corpus.py",
        "sw/models/texts",
    )

    def exact(self) -> FloatGraph:
        return rampart.float_graph()

    def calibration(self) -> list[dict[str, np.ndarray]]:
        return rampart.calibration()

    def tag(self, texts: Sequence[str], device: Device) -> list[Tagged]:
        """Tag texts, several of their windows in a run."""
        given = [rampart.tokenise(text) for text in texts]
        windows = [rampart.window_ids(tokens) for tokens in given]
        encoded = iter(self.encode([ids for each in windows for ids in each], device, "windows"))
        results = []
        for text, tokens, own in zip(texts, given, windows, strict=True):
            found = list(itertools.islice(encoded, len(own)))
            counters: Counter[str] = Counter()
            for window in found:
                counters.update({k: v for k, v in window.counters.items() if isinstance(v, int)})
            tags = rampart.tags(tokens, [window.rows for window in found])
            results.append(Tagged(text, tags, rampart.spans(tokens, tags), counters))
        return results

    def reference_tags(self, text: str) -> np.ndarray:
        """The tags that a device gives, without one."""
        (source,), (output,) = self.graph.inputs, self.graph.outputs

        def run(ids: np.ndarray) -> np.ndarray:
            values = run_reference_rows(self.graph, {source.name: ids}, Rows((len(ids),)))
            return from_integers(values[output.name], self.graph.tensors[output.name])

        tokens = rampart.tokenise(text)
        return rampart.tags(tokens, list(map(run, rampart.window_ids(tokens))))
