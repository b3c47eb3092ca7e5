"""Cascades of language models: cycles of all passes, and how many tokens are the large model's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.cache import source_digest
from sw.bench.cascade import Questions
from sw.bench.results import known
from sw.bench.speculation import PassCycles
from sw.decoding.calibration import Observed, digest_of, predictions
from sw.decoding.cascade import Cascade
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import self_test
from sw.driver.decoder import LoadedDecoder

__all__ = [
    "Pass",
    "PassLog",
    "answered_once",
    "measure_answer",
    "questions_of",
    "short_answers",
    "summary",
]


class Pass(NamedTuple):
    """rows: tokens of it. reading: without the head."""

    position: int
    rows: int
    reading: bool


class PassLog:
    """Passes of a model on a device, from when this is made.

    cycles: of passes that predict; those that read are the cost model's.
    """

    def __init__(self, model: LoadedDecoder, cycles: PassCycles):
        self.model, self.cycles = model, cycles
        self.passes: list[Pass] = []
        run = model.run

        def logged(session: Any, ids: Any, *rest: Any, **options: Any) -> Any:
            rows = options.get("rows") or len(ids)
            self.passes.append(Pass(session.position, rows, options.get("reading", False)))
            return run(session, ids, *rest, **options)

        model.run = logged  # type: ignore[method-assign]

    def take(self, begin: int) -> np.ndarray:
        """Cycles of the passes since this was last called: [of those that began in front of
        position `begin`, of the others]."""
        found = np.zeros(2)
        for each in self.passes:
            found[int(each.position >= begin)] += self.of(each)
        self.passes.clear()
        return found

    def of(self, each: Pass) -> float:
        """Cycles of a pass."""
        if each.reading:
            entry = self.model.program.entries[each.rows]
            return entry.estimated_cycles(each.position, True)
        return self.cycles(each.rows, each.position)


def answered_once(
    cascade: Cascade,
    logs: Sequence[PassLog],
    prompt: Sequence[int],
    ends: Collection[int],
    tokens: int,
) -> dict[str, Any]:
    """As `measure_answer`; what an earlier run found out is known."""
    measured = [
        (rows, item["context"], item["cycles"])
        for log in logs
        for rows, items in log.cycles.measured.items()
        for item in items
    ]
    what = (prompt, sorted(ends), tokens, cascade.test.__name__, cascade.threshold, measured)
    digest = digest_of((cascade.small.program, cascade.large.program), what)
    key = source_digest(
        "sw/bench/cascade_text.py", "sw/bench/recalled.py", "sw/decoding", "sw/driver", "sw/golden"
    )

    def make() -> dict[str, Any]:
        return measure_answer(cascade, logs, prompt, ends, tokens)

    return known("texts", f"answer-{digest}-{key}", make)


def measure_answer(
    cascade: Cascade,
    logs: Sequence[PassLog],
    prompt: Sequence[int],
    ends: Collection[int],
    tokens: int,
) -> dict[str, Any]:
    """A prompt answered by the large model alone and by a cascade, both with drafts copied from
    the text and without.

    logs: of the small and the large model. Cycles are [of reading the prompt, behind it]; what the
    large model of a cascade reads of the prompt is in the first. `same`: how many tokens of the
    cascade's text the large model would have said there, too, of `judged`.
    """
    begin = len(prompt)
    for log in logs:
        log.passes.clear()
    session = cascade.large.session()
    alone = list(Decoding(Sampler(), ends, Lookup()).answer(session, prompt, tokens))
    session.close()
    drafting = logs[1].take(begin)

    def plain(text: Sequence[int]) -> list[float]:
        """Cycles of the large model alone for a text, without drafts."""
        passes = range(len(text) - (len(text) == tokens))  # an end token takes one as well
        behind = sum(logs[1].of(Pass(begin + n, 1, False)) for n in passes)
        return [float(drafting[0]), float(behind)]

    found: dict[str, Any] = {
        "tokens": len(alone),
        "alone": {"plain": plain(alone), "drafts": drafting.tolist()},
    }
    for name, source in (("plain", None), ("drafts", Lookup())):
        both = cascade.session()
        decoding = Decoding(Sampler(), ends, source)
        text = list(cascade.answer(decoding, both, prompt, tokens))
        small, large = (log.take(begin) for log in logs)
        found[name] = {
            "tokens": len(text),
            "asked": both.asked,
            "cycles": (small + large).tolist(),
            "large_cycles": plain(text),
            "taking_over": large.tolist(),
            "identical": text == alone,
            **_judged(cascade.large, prompt, text, ends, tokens),
        }
        both.close()
        logs[1].passes.clear()
    return found


def short_answers(
    models: Sequence[LoadedDecoder],
    logs: Sequence[PassLog],
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    tokens: int,
    test: str,
    update: Callable[[float, float], None] = lambda _done, _total: None,
) -> Questions:
    """Answers of the small and the large model as questions: wrong are those of the small one that
    are another text, how sure it is its least sure token says. Cycles with reading the prompt."""
    both = Cascade(models, test, 0, by="answer")
    found = []
    for number, prompt in enumerate(prompts):
        update(number, len(prompts))
        for log in logs:
            log.passes.clear()
        session = both.session()
        texts = [list(both.answer(Decoding(Sampler(), ends), session, prompt, tokens))]
        sure = session.least_sure(len(prompt) - 1)
        session.close()
        session = both.large.session()
        texts.append(list(Decoding(Sampler(), ends).answer(session, prompt, tokens)))
        session.close()
        cycles = [float(log.take(0).sum()) for log in logs]
        found.append((sure, texts[0] != texts[1], *cycles))
    update(len(prompts), len(prompts))
    confidences, wrong, *cycles = (np.array(column, float) for column in zip(*found, strict=True))
    return Questions(confidences, wrong.astype(np.int64), np.ones(len(found), np.int64), *cycles)


def _judged(
    large: LoadedDecoder,
    prompt: Sequence[int],
    text: Sequence[int],
    ends: Collection[int],
    tokens: int,
) -> dict[str, int]:
    """How many tokens of an answer, its end among them, are what the large model says there."""
    wanted = predictions(large, [*prompt, *text], len(prompt) - 1).tokens[:, 0]
    same = int((wanted[:-1] == text).sum()) if text else 0
    if len(text) == tokens:
        return {"judged": len(text), "same": same}
    return {"judged": len(text) + 1, "same": same + (int(wanted[-1]) in ends)}


def summary(results: Sequence[Mapping[str, Any]], mode: str) -> dict[str, Any]:
    """Prompts together, `plain` or with `drafts`: all tokens, all cycles.

    `cycles_ratio`: of the cascade / of the large model alone for the same texts without drafts,
    reading the prompt included; `of_decoding`: behind the prompt. `drafts_alone`: the same quotient
    of the large model alone with drafts, for its own texts. `taking_over`: of the large model in
    the cascade, a part of `cycles_ratio`.
    """

    def cycles(name: str) -> np.ndarray:
        return np.sum([r[mode][name] for r in results], axis=0)

    alone = {n: np.sum([r["alone"][n] for r in results]) for n in ("plain", "drafts")}
    judged, same, asked = (sum(r[mode][n] for r in results) for n in ("judged", "same", "asked"))
    both, large, over = map(cycles, ("cycles", "large_cycles", "taking_over"))
    return {
        "questions": len(results),
        "answers": judged,
        "agreement": same / judged,
        "identical": float(np.mean([r[mode]["identical"] for r in results])),
        "doubted": asked / judged,
        "cycles_ratio": float(both.sum() / large.sum()),
        "of_decoding": float(both[1] / max(large[1], 1)),
        "drafts_alone": float(alone["drafts"] / alone["plain"]),
        "taking_over": float(over.sum() / large.sum()),
        "large_cycles": float(large.sum() / len(results)),
    }


def questions_of(seen: Observed, test: str) -> Questions:
    """Tokens of calibration as questions, without cycles: for pictures."""
    sure, nothing = self_test(test)(seen.logs), np.zeros(len(seen.right))
    wrong = (~seen.right).astype(np.int64)
    return Questions(sure, wrong, np.ones_like(wrong), nothing, nothing)
