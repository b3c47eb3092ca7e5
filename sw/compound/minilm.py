"""all-MiniLM-L6-v2, one text or several in a run: which of its optimisations save what.

The plans of what is pruned, cut and stored in 4 bits are those that `weft bench sparsity` and `weft
bench structured` found; a linear that two plans name has both. Without `tokens`, texts have as many
rows as the longest of them; the masks of these rows, some bytes, are not counted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sw.bench import sparsity, structured
from sw.bench.accuracy import compare, integer_embeddings
from sw.bench.measure import Step, silent
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.prune.cut import PruneOptions
from sw.compiler.tune.tune import Tuner
from sw.compound.gains import Chosen
from sw.compound.subject import Subject, switches_of, with_sleep
from sw.energy import Counts, predicted
from sw.models import minilm
from sw.models.corpus import evaluation_texts
from sw.models.tuning import subject

__all__ = ["MiniLM"]

TEXTS = "technical"
"""Sentences held out, on which accuracy is measured."""
FOUR_BITS, SPARSE, CUT = "INT4 5.0 bits", "2:4 50%", "surgeon, + least squares"
"""Plans by their names in the benchmarks' results."""


class MiniLM(Subject):
    """lengths: tokens of each text."""

    name = "all-MiniLM-L6-v2"
    unit = "run"
    offers = ("formats", "2:4", "structured", "tokens", "sleep", "fusion", "prefetch", "softmax")
    refuses: ClassVar = {
        "speculation": "it writes no text",
        "cascade": "what is asked of the large model depends on all questions: weft bench cascade "
        "measures it",
    }

    def __init__(self, config: AcceleratorConfig, lengths: Sequence[int], step: Step = silent):
        self.config, self.lengths, self._step = config, tuple(lengths), step
        first, *others = map(str, lengths)
        self.work = f"a text of {first} tokens"
        if others:
            self.work = f"texts of {', '.join([first, *others[:-1]])} and {others[-1]} tokens"
        formats = [WeightFormat.parse(name) for name in ("2:4 int8", "int4/32", "2:4 int4/32")]
        self._tuner = Tuner(
            subject(max(lengths)), config, (DENSE, *formats), pruning=PruneOptions()
        )
        self._graphs: dict[Chosen, QuantGraph] = {}

    def changes_results(self, chosen: Chosen) -> Chosen:
        return chosen & {"formats", "2:4", "structured"}

    def graph(self, chosen: Chosen) -> QuantGraph:
        """In integers, for texts of any length."""
        plan = self.changes_results(chosen)
        if plan not in self._graphs:
            update = self._step(f"Quantising with {', '.join(sorted(plan)) or 'dense INT8'}")
            cuts = structured.read_points(structured.RESULTS)[CUT]["cuts"]
            self._graphs[plan] = self._tuner.quantised(
                self._formats(plan),
                cuts if "structured" in plan else {},
                lambda _text, part: update(part, 1),
            )
        return self._graphs[plan]

    def _formats(self, plan: Chosen) -> dict[str, WeightFormat]:
        known = sparsity.read_points(sparsity.RESULTS)
        pruned = known[SPARSE]["formats"] if "2:4" in plan else {}
        narrow = known[FOUR_BITS]["formats"] if "formats" in plan else {}
        found = {}
        for place in self._tuner.places:
            values = "int4/32" if place in narrow else "int8"
            if place in pruned or place in narrow:
                found[place] = WeightFormat.parse(f"2:4 {values}" if place in pruned else values)
        return found

    @functools.cache  # noqa: B019
    def program(self, chosen: Chosen) -> Program:
        graph, lengths = self.graph(chosen), self.lengths
        if "tokens" in chosen:
            graph = with_lengths(graph, lengths)
        else:
            graph = with_shape(graph, len(lengths), max(lengths))
        return lower(graph, with_sleep(self.config, chosen), switches=switches_of(chosen))

    def counts(self, chosen: Chosen) -> Counts:
        return predicted(self.program(chosen))

    @functools.cached_property
    def _exact(self) -> np.ndarray:
        self._step("PyTorch float32")
        return minilm.float_embeddings(evaluation_texts(TEXTS))

    def accuracy(self, chosen: Chosen) -> dict[str, float]:
        """Cosines of sentence embeddings, and how often the nearest other sentence is the same."""
        exact, graph = self._exact, self.graph(chosen)
        update = self._step(f"{len(exact)} sentences")
        found = compare(TEXTS, exact, integer_embeddings(graph, evaluation_texts(TEXTS), update))
        return {"cosine": found.mean, "least": found.minimum, "nearest": found.neighbours}
