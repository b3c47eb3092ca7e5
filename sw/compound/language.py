"""SmolLM2, a token of a text: which of its optimisations save what.

A token costs a pass; with drafts several tokens share one. How many, and in passes of which sizes,
is what the policy of `weft generate --draft lookup` decides for texts that the model writes, by the
cycles of passes on the machine in question. Each pass is counted at one position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hw.config import AcceleratorConfig
from sim.cache import source_digest
from sw.bench.measure import Step, silent
from sw.bench.perplexity import INTEGERS, compare, integer_log_probabilities
from sw.bench.replay import Replay
from sw.bench.results import known
from sw.bench.speculation import KINDS, prompts_of
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.switches import Switches
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compound.gains import Chosen
from sw.compound.subject import Subject, switches_of, with_sleep
from sw.decoding.calibration import digest_of
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Auto
from sw.decoding.sampler import Sampler
from sw.driver import open_device
from sw.energy import Counts
from sw.energy.counts import of_commands
from sw.models import smollm2
from sw.models.generator import Generator

__all__ = ["SmolLM2"]

SIZES = (1, 4, 8)
"""Tokens of a pass."""
PREFILL = 128
"""Tokens of the passes that read prompts of the texts, which nobody counts."""
NO_TOKEN = -1

Text = tuple[list[int], list[int]]
"""A prompt and what the model wrote."""
Key = tuple[int, Switches]
"""Bits of weights, and how they were lowered."""


@dataclass(frozen=True)
class _Passes:
    """counts: of a pass, by its tokens and whether units sleep. drafted: how many passes of each
    size the texts took with drafts. tokens: of the texts."""

    counts: Mapping[tuple[int, bool], Counts]
    drafted: Mapping[int, int]
    tokens: int


class SmolLM2(Subject):
    """position: at which passes end. tokens: of a text, at most. prompts: of each kind.
    sequences: of each kind of text on which accuracy is measured; 0: all."""

    name = "SmolLM2-135M-Instruct"
    unit = "token"
    offers = ("formats", "speculation", "sleep", "fusion", "prefetch", "softmax")
    refuses: ClassVar = {
        "2:4": "language models have dense weights",
        "structured": "heads and channels of language models are not cut",
        "tokens": "a window of keys excludes drafts: weft bench window measures it",
        "cascade": "a cascade has two programs: weft bench cascade measures it",
    }

    def __init__(
        self,
        config: AcceleratorConfig,
        position: int,
        tokens: int = 96,
        prompts: int = 1,
        sequences: int = 1,
        step: Step = silent,
    ):
        self.config, self.position, self._step = config, position, step
        self._tokens, self._prompts, self._sequences = tokens, prompts, sequences
        self.work = f"a token at position {position}, {len(KINDS) * prompts} texts"
        self._passes: dict[Key, _Passes] = {}
        self._texts: dict[int, list[Text]] = {}
        most = smollm2.load().context(None)
        if not max(SIZES) < position <= most:
            raise InputError(f"--context {position}: give {max(SIZES) + 1} to {most}")

    def changes_results(self, chosen: Chosen) -> Chosen:
        return chosen & {"formats"}

    def _generator(self, bits: int) -> Generator:
        return Generator(self.config, step=self._step, bits=bits)

    # --- texts ----------------------------------------------------------------------------------

    def texts(self, bits: int) -> list[Text]:
        """What the model writes, token by token; known, if an earlier run wrote it."""
        if bits not in self._texts:
            generator = self._generator(bits)
            program = generator.program((1, PREFILL))
            model = generator.model
            questions = [text for kind in KINDS for text in prompts_of(kind)[: self._prompts]]
            prompts = [model.prompt([{"role": "user", "content": text}]) for text in questions]
            update = self._step(f"Texts with weights of {bits} bits")

            def write() -> list[list[int]]:
                found = []
                with open_device("golden", config=program.config) as device:
                    decoder = device.load_decoder(program)
                    for number, prompt in enumerate(prompts):
                        update(number, len(prompts))
                        session = decoder.session()
                        decoding = Decoding(Sampler(), model.checkpoint.ends)
                        found.append(list(decoding.answer(session, prompt, self._tokens)))
                        session.close()
                return found

            code = source_digest("sw/compound/language.py", "sw/decoding", "sw/driver", "sw/golden")
            name = f"compound-{digest_of([program], (prompts, self._tokens))}-{code}"
            self._texts[bits] = list(zip(prompts, known("texts", name, write), strict=True))
        return self._texts[bits]

    # --- passes ---------------------------------------------------------------------------------

    def passes(self, bits: int, switches: Switches) -> _Passes:
        """What passes take, and how many of them drafts leave."""
        key = bits, switches
        if key not in self._passes:
            off = [name for name, on in vars(switches).items() if not on]
            self._step(f"Compiling {bits} bits" + (f" without {', '.join(off)}" if off else ""))
            program = lower_decoder(self._generator(bits).graph, self.config, SIZES, switches)
            drafted, tokens = self._drafted(program, self.texts(bits))
            counts = {
                (size, sleep): self._count(program, size, sleep)
                for size in SIZES
                for sleep in (False, True)
            }
            self._passes[key] = _Passes(counts, drafted, tokens)
        return self._passes[key]

    def _drafted(self, program: DecoderProgram, texts: Sequence[Text]) -> tuple[Counter[int], int]:
        """Passes by size, and tokens, of the texts with drafts; each text's first token comes with
        its prompt."""
        sizes: Counter[int] = Counter()
        for prompt, text in texts:
            session = Replay(program, prompt + text, NO_TOKEN)
            decoding = Decoding(Sampler(), {NO_TOKEN}, Lookup(), Auto())
            assert list(decoding.answer(session, prompt, len(text))) == text
            sizes.update(step.rows for step in decoding.steps)
        return sizes, sum(len(text) - 1 for _, text in texts)

    def _count(self, program: DecoderProgram, size: int, sleep: bool) -> Counts:
        entry, before = program.entries[size], self.position - size
        registers = program.registers(before, np.zeros(size, np.int64), False, before)
        return of_commands(
            replace(self.config, sleep=sleep),
            entry.commands.tobytes(),
            entry.estimated_cycles(before),
            registers,
        )

    def counts(self, chosen: Chosen) -> Counts:
        bits = 4 if "formats" in chosen else 8
        passes = self.passes(bits, switches_of(chosen))
        sizes: Mapping[int, float] = {1: 1.0}
        if "speculation" in chosen:
            sizes = {size: n / passes.tokens for size, n in passes.drafted.items()}
        sleep = "sleep" in chosen
        parts = [(passes.counts[size, sleep], times) for size, times in sizes.items()]
        activity = {
            name: sum(times * counts[name] for counts, times in parts)
            for name in parts[0][0].activity
        }
        cycles, reads, writes = (
            round(sum(times * getattr(counts, name) for counts, times in parts))
            for name in ("cycles", "read_bytes", "write_bytes")
        )
        config = with_sleep(self.config, chosen)
        return Counts(config, cycles, activity, reads, writes, measured=False)

    def accuracy(self, chosen: Chosen) -> dict[str, float]:
        """Divergence of the next token's distribution from float32's, in millinats."""
        bits = 4 if "formats" in chosen else 8
        graph, module = self._generator(bits).graph, smollm2.load().checkpoint.module
        first, found = len(smollm2.load().prefix), []
        for kind in ("prose", "code"):
            texts = smollm2.evaluation(kind)[: self._sequences or None]
            update = self._step(f"Next tokens of {kind}, weights of {bits} bits")
            arithmetics = {INTEGERS: lambda ids: integer_log_probabilities(graph, ids)}
            found.append(compare(kind, module, arithmetics, texts, first, update))
        weights = [item.tokens for item in found]
        results = [item.results[INTEGERS] for item in found]
        kl, same = (
            float(np.average([getattr(item, name) for item in results], weights=weights))
            for name in ("divergence", "agreement")
        )
        return {"KL, millinats": kl, "same token": same}
