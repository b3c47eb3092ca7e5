"""Personal data in texts, found on a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Result for one text. tags: one for each of its tokens. counters: of the device, added up over
    the windows of the text; empty on the golden device."""

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
        """Tag texts one after another."""
        results = []
        update = self._step(f"Running {len(texts)} texts on the {self.config.name} accelerator")
        for number, text in enumerate(texts):
            update(number, len(texts))
            counters: Counter[str] = Counter()

            def run(ids: np.ndarray, counters: Counter[str] = counters) -> np.ndarray:
                logits: Any = device.load(self.program(len(ids)))(ids[None])
                counters.update({k: v for k, v in device.counters().items() if isinstance(v, int)})
                return np.asarray(logits).reshape(len(ids), -1)

            tokens = rampart.tokenise(text)
            tags = rampart.tags(tokens, run)
            results.append(Tagged(text, tags, rampart.spans(tokens, tags), counters))
        update(len(texts), len(texts))
        return results

    def reference_tags(self, text: str) -> np.ndarray:
        """The tags that a device gives, without one."""
        (source,), (output,) = self.graph.inputs, self.graph.outputs

        def run(ids: np.ndarray) -> np.ndarray:
            values = run_reference_rows(self.graph, {source.name: ids}, Rows((len(ids),)))
            return from_integers(values[output.name], self.graph.tensors[output.name])

        return rampart.tags(rampart.tokenise(text), run)
