"""What drafts save: a fixed set of prompts, decoded with and without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.isa import SELECTED
from sim.cache import source_digest
from sw.bench.measure_decoder import measure_pass
from sw.bench.replay import Replay
from sw.bench.results import CACHE, known
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.calibration import digest_of
from sw.decoding.decoding import Decoding, Step
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Auto, Fixed
from sw.decoding.sampler import Sampler
from sw.driver.decoder import LoadedDecoder
from sw.models.language_model import LanguageModel

__all__ = [
    "KINDS",
    "SHORT",
    "PassCycles",
    "by_drafts",
    "host_bytes",
    "measure_prompt",
    "measure_rtl",
    "prompts_of",
    "summary",
]

KINDS = ("chat", "code", "rewriting", "summaries")
"""Of prompts: questions; functions to change a little; texts to correct or change; texts to
summarise. Each has a file in `prompts/`."""
SHORT = "short"
"""Questions with an answer of a word or two: for cascades, not for drafts."""
_SEPARATOR = "\n----\n"

POSITIONS = (48, 144, 272)
"""Where passes are measured on the RTL. Between them their quotient to the cost model's number is
taken to change evenly."""
CHECKED = (96, 208)
"""Where that is checked."""


def prompts_of(kind: str) -> list[str]:
    """The prompts of a kind."""
    text = (Path(__file__).parent / "prompts" / f"{kind}.txt").read_text(encoding="utf-8")
    return text.strip().split(_SEPARATOR)


@dataclass(frozen=True)
class PassCycles:
    """Cycles of a pass at any position: the cost model's, corrected by what the RTL took.

    measured: passes by number of tokens, as `measure_pass` gives them; without any of them it is
    the cost model alone.
    """

    program: DecoderProgram
    measured: Mapping[int, Sequence[Mapping[str, Any]]]

    def __call__(self, rows: int, position: int) -> float:
        estimate = self.program.entries[rows].estimated_cycles(position)
        passes = self.measured.get(rows, ())
        if not passes:
            return estimate
        places = [item["context"] - item["tokens"] for item in passes]
        ratios = [item["cycles"] / item["estimated_cycles"] for item in passes]
        return estimate * float(np.interp(position, places, ratios))


def measure_rtl(
    program: DecoderProgram, step: Callable[[str], Any]
) -> tuple[PassCycles, list[dict[str, Any]]]:
    """Passes of each size that verifies, on the RTL: what cycles they take anywhere, and the passes
    that this was checked against, with what was expected of them as `interpolated_cycles`. Those
    that an earlier run measured are known."""
    key = source_digest("hw", "sim", "sw/golden", "sw/driver", "sw/bench/measure_decoder.py")
    machine = program.config.hardware()

    def measured(rows: int, position: int) -> dict[str, Any]:
        step(f"RTL: {rows} tokens at {position}")
        digest = digest_of([program], (machine, rows, position))
        return known(CACHE, f"{digest}-{key}", lambda: measure_pass(program, rows, position))

    sizes = [entry.tokens for entry in program.entries.values() if entry.selected == entry.tokens]
    passes = {rows: [measured(rows, position) for position in POSITIONS] for rows in sizes}
    cycles, checks = PassCycles(program, passes), []
    for rows in sizes:
        for position in CHECKED:
            expected = round(cycles(rows, position))
            checks.append({**measured(rows, position), "interpolated_cycles": expected})
    return cycles, checks


def measure_prompt(
    decoder: LoadedDecoder,
    model: LanguageModel,
    prompt: str,
    tokens: int,
    cycles: PassCycles,
) -> dict[str, Any]:
    """Answer a prompt with and without drafts copied from the text: both texts, and their passes.

    `tokens_per_step`: tokens a pass, the first token of an answer left out, which comes from
    reading the prompt. `speedup`: cycles of decoding without drafts / with.
    """
    ids = model.prompt([{"role": "user", "content": prompt}])
    texts, passes = _decoded(decoder, ids, model.checkpoint.ends, tokens)
    plain, drafting = ([Step(*step) for step in steps] for steps in passes)
    return {
        "prompt": prompt,
        "ids": ids,
        "text": model.tokenizer.decode(texts[1]),
        "tokens": texts[1],
        "identical": texts[0] == texts[1],
        **account(drafting, plain, cycles),
    }


def _decoded(
    decoder: LoadedDecoder, ids: Sequence[int], ends: Collection[int], tokens: int
) -> list[list[Any]]:
    """Texts without and with drafts, and the steps of both; known, if an earlier run decoded
    them."""

    def decode() -> list[list[Any]]:
        decodings = Decoding(Sampler(), ends), Decoding(Sampler(), ends, Lookup(), Auto())
        prompt, texts = decoder.session(), []
        prompt.read(ids[prompt.position : -1])
        for decoding in decodings:
            session = prompt.fork()
            texts.append(list(decoding.answer(session, ids, tokens)))
            session.close()
        prompt.close()
        return [texts, [decoding.steps for decoding in decodings]]

    digest = digest_of([decoder.program], (ids, sorted(ends), tokens))
    key = source_digest("sw/bench/speculation.py", "sw/decoding", "sw/driver", "sw/golden")
    return known("texts", f"drafts-{digest}-{key}", decode)


def account(drafting: Sequence[Step], plain: Sequence[Step], cycles: PassCycles) -> dict[str, Any]:
    """Passes of the same text with and without drafts, in numbers."""
    tokens = sum(step.tokens for step in drafting)
    with_drafts = sum(cycles(step.rows, step.position) for step in drafting)
    without = sum(cycles(step.rows, step.position) for step in plain)
    return {
        "decoded": tokens,
        "passes": len(drafting),
        "rows": {str(n): count for n, count in sorted(Counter(s.rows for s in drafting).items())},
        "drafted": sum(step.drafted for step in drafting),
        "accepted": sum(step.accepted for step in drafting),
        "cycles": round(with_drafts),
        "plain_cycles": round(without),
        "tokens_per_step": tokens / max(len(drafting), 1),
        "speedup": without / with_drafts if drafting else 1.0,
    }


def by_drafts(
    program: DecoderProgram, results: Sequence[Mapping[str, Any]], cycles: PassCycles
) -> dict[str, float]:
    """Speedup of texts that are known by number of drafts in a pass, without running them again."""
    end, found = -1, {}
    for most in range(1, SELECTED):
        with_drafts = without = 0.0
        for result in results:
            begin, text = list(result["ids"]), result["tokens"]
            session = Replay(program, begin + text, end)
            decoding = Decoding(Sampler(), {end}, Lookup(), Fixed(most))
            assert list(decoding.answer(session, begin, len(text))) == text
            with_drafts += sum(cycles(step.rows, step.position) for step in decoding.steps)
            places = range(len(begin), len(begin) + len(text) - 1)
            without += sum(cycles(1, position) for position in places)
        found[str(most)] = without / with_drafts
    return found


def host_bytes(program: DecoderProgram) -> dict[str, dict[str, int]]:
    """Bytes that a pass with other tokens than the likeliest one needs of the host, and gives it,
    by number of tokens. Registers are not counted."""
    found = {}
    for tokens, entry in program.entries.items():
        rows = 0 if entry.by_token else len(program.encode(0, np.zeros(tokens, np.int64)))
        selected = 2 * entry.selected * program.output_bytes
        found[str(tokens)] = {"to_the_machine": rows, "from_the_machine": selected}
    return found


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prompts of one kind together. `speedup`: of all their cycles; `mean_speedup`: mean of the
    prompts'; `least_speedup`: of the one that gains least."""

    def total(name: str) -> int:
        return sum(result[name] for result in results)

    speedups = [result["speedup"] for result in results]
    return {
        "prompts": len(results),
        "decoded": total("decoded"),
        "passes": total("passes"),
        "cycles_a_token": total("cycles") / max(total("decoded"), 1),
        "plain_cycles_a_token": total("plain_cycles") / max(total("decoded"), 1),
        "tokens_per_step": total("decoded") / max(total("passes"), 1),
        "speedup": total("plain_cycles") / max(total("cycles"), 1),
        "mean_speedup": float(np.mean(speedups)),
        "least_speedup": min(speedups),
        "identical": all(result["identical"] for result in results),
    }
