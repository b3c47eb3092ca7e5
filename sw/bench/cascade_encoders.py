"""Pairs of encoders for cascades: the same model with weights of other formats, other tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.sparse.formats import DENSE, WeightFormat
from sw.bench.accuracy import integer_embeddings
from sw.bench.cascade import Questions
from sw.bench.cascade_models import ShortEmbedder, StoredEmbedder, StoredTagger
from sw.bench.cases import random_inputs
from sw.bench.measure import measure_program
from sw.compiler.graph.reference import from_integers, run_reference_rows
from sw.compiler.graph.rows import Rows
from sw.decoding.self_test import Nearest, log_probabilities, self_test
from sw.models import minilm, rampart
from sw.models.corpus import evaluation_texts
from sw.models.embedder import Embedder
from sw.models.encoder import Encoder
from sw.models.tagger import Tagger

__all__ = ["PAIRS", "Pair", "measure_rtl"]

Step = Callable[[str], Callable[[float, float], None]]
KINDS = ("technical", "everyday")


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


Make = Callable[[str, Step], tuple[Encoder, Encoder]]
"""Both encoders of a pair, from a configuration and a `step`."""


@dataclass(frozen=True)
class Pair:
    """A row of the table. ask: the task."""

    small: str
    large: str
    task: str
    make: Make
    ask: Callable[[Encoder, Encoder], Questions]


def _embedders(small: str | int, large: str = DENSE.name) -> Make:
    """Formats of their linears, or how many layers the small one has."""
    return lambda config, step: (_embedder(config, step, small), _embedder(config, step, large))


def _embedder(config: str, step: Step, kind: str | int) -> Encoder:
    if isinstance(kind, int):
        return ShortEmbedder(config, step, kind)
    if kind == DENSE.name:  # as everywhere else, from the cache
        return Embedder(config, step)
    return StoredEmbedder(config, step, WeightFormat.parse(kind))


def _taggers(small: str, large: str = DENSE.name) -> Make:
    return lambda config, step: (_tagger(config, step, small), _tagger(config, step, large))


def _tagger(config: str, step: Step, kind: str) -> Encoder:
    if kind == DENSE.name:
        return Tagger(config, step)
    return StoredTagger(config, step, WeightFormat.parse(kind))


BOTH, SPARSE, WIDE, LAYERS = "2:4 int4/32", "2:4 int8", "int8 x int16", 3
SHORT = f"MiniLM, {LAYERS} layers"
PAIRS = {
    "search": Pair(f"MiniLM {BOTH}", "INT8", "search", _embedders(BOTH), search),
    "neighbours": Pair(f"MiniLM {BOTH}", "INT8", "neighbours", _embedders(BOTH), neighbours),
    "tags": Pair(f"Rampart {SPARSE}", "INT8", "tags", _taggers(SPARSE), tags),
    "tags-int4": Pair(f"Rampart {BOTH}", "INT8", "tags", _taggers(BOTH), tags),
    "search-layers": Pair(SHORT, "six, INT8", "search", _embedders(LAYERS), search),
    "neighbours-layers": Pair(SHORT, "six, INT8", "neighbours", _embedders(LAYERS), neighbours),
    "search-int16": Pair("MiniLM INT8", WIDE, "search", _embedders("int8", WIDE), search),
    "neighbours-int16": Pair(
        "MiniLM INT8", WIDE, "neighbours", _embedders("int8", WIDE), neighbours
    ),
    "tags-int16": Pair("Rampart INT8", WIDE, "tags", _taggers("int8", WIDE), tags),
}
"""By name."""


def measure_rtl(encoder: Encoder, tokens: int, step: Step) -> dict[str, Any]:
    """A program on the RTL, every byte against golden."""
    program = encoder.program(tokens)
    found = measure_program(program, random_inputs(program.graph), step=step)
    names = ("cycles", "estimated_cycles", "bit_exact")
    return {"encoder": encoder.title, "tokens": tokens, **{name: found[name] for name in names}}
