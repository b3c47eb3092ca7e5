"""The rows of `weft bench cascade` of a language model: its weights of 4 bits before those of 8."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sw.bench.cascade import agreement_by_confidence, curve, figures
from sw.bench.cascade_text import PassLog, answered_once, questions_of, short_answers, summary
from sw.bench.recalled import Recalled
from sw.bench.speculation import KINDS, SHORT, PassCycles, measure_rtl, prompts_of
from sw.cli.cascading import ANSWER, calibration_prompts, observed
from sw.decoding.calibration import Observed
from sw.decoding.cascade import Cascade
from sw.driver.decoder import LoadedDecoder
from sw.models.generator import Generator
from sw.models.language_model import LanguageModel

__all__ = ["Languages", "answer_row", "languages", "text_rows"]

Step = Callable[[str], Callable[[float, float], None]]
MOST_OF_SHORT = 24
"""Tokens of an answer to a short question, at most."""


@dataclass(frozen=True)
class Languages:
    """A model with weights of 4 and of 8 bits, on the golden device. logs: of both."""

    model: LanguageModel
    small: LoadedDecoder
    large: LoadedDecoder
    logs: list[PassLog]

    @property
    def both(self) -> tuple[LoadedDecoder, LoadedDecoder]:
        return self.small, self.large

    @property
    def context(self) -> int:
        return min(decoder.program.context for decoder in self.both)

    @property
    def ends(self) -> frozenset[int]:
        return self.model.checkpoint.ends

    @property
    def names(self) -> dict[str, str]:
        return {"small": f"{self.model.name} 4 bits", "large": "8 bits"}

    def prompt(self, text: str) -> list[int]:
        return self.model.prompt([{"role": "user", "content": text}])


@contextmanager
def languages(path: str | None, config: str, device: str, step: Step) -> Iterator[Languages]:
    """SmolLM2, or the model of a file or folder. device: where cycles come from."""
    given = LanguageModel(path) if path else None
    generators = [Generator(config, step=step, model=given, bits=bits) for bits in (4, 8)]
    with generators[1].open("golden") as opened:
        programs = [generator.program() for generator in generators]
        measured = [
            measure_rtl(program, step)[0] if device == "verilator" else PassCycles(program, {})
            for program in programs
        ]
        texts: list[list[int]] = []
        small, large = (Recalled(each, texts) for each in opened.load_decoders(*programs))
        logs = [PassLog(*pair) for pair in zip((small, large), measured, strict=True)]
        yield Languages(generators[1].model, small, large, logs)


def text_rows(
    pair: Languages, agreement: float, test: str, tokens: int, most: int | None, step: Step
) -> dict[str, dict[str, Any]]:
    """Token by token, with and without drafts: all kinds of prompts, and each. Every other prompt
    is answered with the threshold that the others give. most: prompts of a kind; those with which
    `weft generate` does not calibrate come first."""
    asked: list[tuple[str, int, str]] = []
    for kind in KINDS:
        prompts = list(enumerate(prompts_of(kind)))
        asked += [(kind, *each) for each in (prompts[1::2] + prompts[0::2])[:most]]
    known: dict[int, Observed] = {}
    cascades: dict[int, Cascade] = {}
    for part in sorted({number % 2 for _, number, _ in asked}, reverse=True):
        others = calibration_prompts(pair.model, pair.context, 1 - part)
        known[part] = observed(*pair.both, others, pair.ends, ANSWER, step)
        cascades[part] = Cascade(pair.both, test, known[part].threshold(test, agreement))
    found: list[dict[str, Any]] = []
    update = step(f"Prompts: {len(asked)}")
    for done, (kind, number, text) in enumerate(asked):
        update(done, len(asked))
        prompt = pair.prompt(text)
        room = min(tokens, pair.context - len(prompt))
        if room > 0:
            answer = answered_once(cascades[number % 2], pair.logs, prompt, pair.ends, room)
            found.append({"kind": kind, "number": number + 1, **answer})
    update(len(asked), len(asked))
    by_kind = {kind: [each for each in found if each["kind"] == kind] for kind in KINDS}
    every = functools.reduce(operator.add, known.values())
    questions = questions_of(every, test)
    thresholds = [cascade.threshold for cascade in cascades.values()]
    rows: dict[str, dict[str, Any]] = {}
    for mode, name in (("plain", "text"), ("drafts", "text with drafts")):
        rows[name] = {
            **pair.names,
            "task": name,
            "wanted": agreement,
            "threshold": sum(thresholds) / len(thresholds),
            "thresholds": thresholds,
            "alone": float(every.right.mean()),
            "calibrated_on": len(every.right),
            **summary(found, mode),
            "kinds": {kind: summary(each, mode) for kind, each in by_kind.items() if each},
        }
    rows["text"] |= {
        "by_confidence": agreement_by_confidence(questions),
        "curve": curve(questions),
        "prompts": found,
    }
    return rows


def answer_row(
    pair: Languages, agreements: tuple[float, ...], test: str, step: Step
) -> dict[str, Any]:
    """Answer by answer, on the short questions."""
    prompts = [pair.prompt(text) for text in prompts_of(SHORT)]
    room = pair.context - max(map(len, prompts))
    update = step(f"Short questions: {len(prompts)}")
    tokens = min(MOST_OF_SHORT, room)
    questions = short_answers(pair.both, pair.logs, prompts, pair.ends, tokens, test, update)
    return {**pair.names, "task": "short answers", **figures(questions, agreements)}
