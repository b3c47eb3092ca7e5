"""Pairs of encoders for cascades: the same model with weights of other formats, other tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.bench.accuracy import integer_embeddings
from sw.bench.cascade import Questions
from sw.bench.cases import random_inputs
from sw.bench.measure import measure_program
from sw.compiler.graph.operations import FloatGraph, FloatLinear
from sw.compiler.graph.reference import from_integers, run_reference_rows
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise import QuantOptions
from sw.decoding.self_test import Nearest, log_probabilities, self_test
from sw.models import minilm, rampart
from sw.models.corpus import evaluation_texts
from sw.models.embedder import Embedder
from sw.models.encoder import Encoder
from sw.models.tagger import Tagger

__all__ = ["PAIRS", "Pair", "StoredEmbedder", "StoredTagger", "measure_rtl"]

Step = Callable[[str], Callable[[float, float], None]]
KINDS = ("technical", "everyday")


def _stored(exact: FloatGraph, format: WeightFormat) -> QuantOptions:
    """All linears with as many outputs as inputs or more than `LABELS` in a format."""
    places = {op.place for op in exact.ops if isinstance(op, FloatLinear)}
    heads = {
        op.place for op in exact.ops if isinstance(op, FloatLinear) and len(op.weight) < LABELS
    }
    return QuantOptions(formats=dict.fromkeys(places - heads, format))


LABELS = 64
"""A linear with fewer outputs is a head: it keeps INT8."""


class StoredEmbedder(Embedder):
    """all-MiniLM-L6-v2 with all linears in one format."""

    def __init__(self, config: str | AcceleratorConfig, step: Step, format: WeightFormat) -> None:
        super().__init__(config, step)
        self.format, self.name = format, f"minilm-{_file(format)}"
        self.title = f"all-MiniLM-L6-v2 in {format.name}"

    def options(self, exact: FloatGraph) -> QuantOptions:
        return _stored(exact, self.format)


class StoredTagger(Tagger):
    """Rampart with all linears but the head in one format."""

    def __init__(self, config: str | AcceleratorConfig, step: Step, format: WeightFormat) -> None:
        super().__init__(config, step)
        self.format, self.name = format, f"rampart-{_file(format)}"
        self.title = f"Rampart in {format.name}"

    def options(self, exact: FloatGraph) -> QuantOptions:
        return _stored(exact, self.format)


def _file(format: WeightFormat) -> str:
    return format.name.replace(":", "of").replace("/", "x").replace(" ", "-")


def _cycles(encoder: Encoder, lengths: Sequence[int]) -> NDArray[np.float64]:
    """That the cost model expects of a program for each of these numbers of tokens."""
    known = {n: encoder.program(n).estimated_cycles for n in sorted(set(lengths))}
    return np.array([known[n] for n in lengths], np.float64)


# --- tasks ----------------------------------------------------------------------------------------


Query = Callable[[str], str]
"""From a sentence to what is asked for it."""


def _every_other(first: int) -> Query:
    return lambda text: " ".join(text.split()[first::2])


def _nearest(small: Encoder, large: Encoder, queries: Sequence[Query | None]) -> Questions:
    """Sentences of a kind, and for each query the one that is nearest. queries: None is a sentence
    that asks for its nearest other one."""
    parts: list[tuple[NDArray[Any], ...]] = []
    for kind in KINDS:
        texts = evaluation_texts(kind)
        known = [integer_embeddings(encoder.graph, texts) for encoder in (small, large)]
        for query in queries:
            asked = [query(text) for text in texts] if query else list(texts)
            found = []
            for encoder, vectors in zip((small, large), known, strict=True):
                given = integer_embeddings(encoder.graph, asked) if query else vectors
                itself = [None] * len(texts) if query else range(len(texts))
                nearest = Nearest(vectors)
                found.append([nearest(v, n) for v, n in zip(given, itself, strict=True)])
            lengths = [len(ids) for ids in minilm.tokenise(asked)]
            (own, margins), (theirs, _) = (np.array(item).T for item in found)
            cycles = (_cycles(encoder, lengths) for encoder in (small, large))
            parts.append((margins, own != theirs, *cycles))
    confidences, wrong, *cycles = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Questions(confidences, wrong.astype(np.int64), np.ones(len(wrong), np.int64), *cycles)


def search(small: Encoder, large: Encoder) -> Questions:
    """Which of 200 technical, or of 222 everyday sentences is meant by every other word of it, from
    the first or the second on. As there are even numbers of them, no sentence is in both halves."""
    return _nearest(small, large, [_every_other(0), _every_other(1)])


def neighbours(small: Encoder, large: Encoder) -> Questions:
    """Which of the other sentences is nearest to a sentence."""
    return _nearest(small, large, [None])


def tags(small: Encoder, large: Encoder) -> Questions:
    """Tags of made-up medical notes, and of sentences without personal data: a question is a text.
    As tokens are counted, the mean margin of a text's tokens says how sure it is."""
    texts = [*rampart.notes(), *(text for kind in KINDS for text in evaluation_texts(kind))]
    ids = [ids for text in texts for ids in rampart.window_ids(rampart.tokenise(text))]
    logits = [_logits(encoder, ids) for encoder in (small, large)]
    margin = self_test("margin")
    sure = [float(margin(log_probabilities(rows[1:-1])).mean()) for rows in logits[0]]
    wrong = [
        int((a[1:-1].argmax(axis=1) != b[1:-1].argmax(axis=1)).sum())
        for a, b in zip(*logits, strict=True)
    ]
    lengths = [len(each) for each in ids]
    cycles = [_cycles(encoder, lengths) for encoder in (small, large)]
    return Questions(np.array(sure), np.array(wrong), np.array(lengths) - 2, *cycles)


def _logits(encoder: Encoder, ids: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """What the accelerator gives for each text."""
    graph, rows = encoder.graph, Rows(tuple(len(each) for each in ids))
    (source,), (output,) = graph.inputs, graph.outputs
    values = run_reference_rows(graph, {source.name: np.concatenate(ids)}, rows)
    logits = from_integers(values[output.name], graph.tensors[output.name])
    return np.split(logits, np.cumsum(rows.lengths)[:-1])


# --- pairs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A row of the table. make: both encoders, from a configuration and a `step`. ask: the task.
    question: what one is, in words."""

    small: str
    large: str
    task: str
    make: Callable[[str, Step], tuple[Encoder, Encoder]]
    ask: Callable[[Encoder, Encoder], Questions]


def _embedders(small: str) -> Callable[[str, Step], tuple[Encoder, Encoder]]:
    format = WeightFormat.parse(small)
    return lambda config, step: (StoredEmbedder(config, step, format), Embedder(config, step))


def _taggers(small: str) -> Callable[[str, Step], tuple[Encoder, Encoder]]:
    format = WeightFormat.parse(small)
    return lambda config, step: (StoredTagger(config, step, format), Tagger(config, step))


BOTH, SPARSE = "2:4 int4/32", "2:4 int8"
PAIRS = {
    "search": Pair(f"MiniLM {BOTH}", "INT8", "search", _embedders(BOTH), search),
    "neighbours": Pair(f"MiniLM {BOTH}", "INT8", "neighbours", _embedders(BOTH), neighbours),
    "tags": Pair(f"Rampart {SPARSE}", "INT8", "tags", _taggers(SPARSE), tags),
    "tags-int4": Pair(f"Rampart {BOTH}", "INT8", "tags", _taggers(BOTH), tags),
}
"""By name."""


def measure_rtl(encoder: Encoder, tokens: int, step: Step) -> dict[str, Any]:
    """A program on the RTL, every byte against golden."""
    program = encoder.program(tokens)
    found = measure_program(program, random_inputs(program.graph), step=step)
    names = ("cycles", "estimated_cycles", "bit_exact")
    return {"encoder": encoder.title, "tokens": tokens, **{name: found[name] for name in names}}
