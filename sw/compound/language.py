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
from sw.compiler.stream.layout import align
from sw.compound.gains import Chosen
from sw.compound.subject import Subject, switches_of, with_sleep
from sw.decoding.calibration import digest_of
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Auto
from sw.decoding.sampler import Sampler
from sw.driver import open_device
from sw.energy import Counts
from sw.energy.counts import asleep, of_commands
from sw.models import smollm2
from sw.models.generator import Generator
from sw.models.language_model import POSITIONS

__all__ = ["SmolLM2"]

SIZES = (1, 4, 8)
"""Tokens of a pass."""
PREFILL = 128
"""Tokens of the passes that read prompts of the texts, which nobody counts."""
BLOCK = 64
"""Positions of which a context is a multiple: a key block's."""
NO_TOKEN = -1

Text = tuple[list[int], list[int]]
"""A prompt and what the model wrote."""
Key = tuple[int, Switches, bool]
"""Bits of weights, how they were lowered, and whether there are drafts."""


@dataclass(frozen=True)
class _Passes:
    """counts: of a pass of each size, without sleep. drafted: how many passes of each size a token
    takes with drafts; without one is 1 a token."""

    counts: Mapping[int, Counts]
    drafted: Mapping[int, float]


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
        if not max(SIZES) < position <= POSITIONS:
            raise InputError(f"--context {position}: give {max(SIZES) + 1} to {POSITIONS}")

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

    def passes(self, bits: int, switches: Switches, drafts: bool) -> _Passes:
        """What passes take, and how many of them drafts leave."""
        key = bits, switches, drafts
        if key not in self._passes:
            texts = self.texts(bits) if drafts else []
            graph = self._generator(bits).graph
            assert graph.decoder is not None
            # No longer than needed, which costs nothing but the time to compile.
            longest = max((len(prompt) + len(text) for prompt, text in texts), default=0)
            context = align(max(self.position, longest + max(SIZES)), BLOCK)
            context = min(context, graph.decoder.context)
            graph = replace(graph, decoder=replace(graph.decoder, context=context))
            program = lower_decoder(graph, self.config, SIZES if drafts else (1,), switches)
            drafted = self._drafted(program, texts) if drafts else {1: 1.0}
            counts = {size: self._count(program, size) for size in drafted}
            self._passes[key] = _Passes(counts, drafted)
        return self._passes[key]

    @staticmethod
    def _drafted(program: DecoderProgram, texts: Sequence[Text]) -> dict[int, float]:
        """Passes by size, for each token of the texts; a text's first one comes with its prompt."""
        sizes: Counter[int] = Counter()
        for prompt, text in texts:
            session = Replay(program, prompt + text, NO_TOKEN)
            decoding = Decoding(Sampler(), {NO_TOKEN}, Lookup(), Auto())
            assert list(decoding.answer(session, prompt, len(text))) == text
            sizes.update(step.rows for step in decoding.steps)
        tokens = sum(len(text) - 1 for _, text in texts)
        return {size: passes / tokens for size, passes in sorted(sizes.items())}

    def _count(self, program: DecoderProgram, size: int) -> Counts:
        entry, before = program.entries[size], self.position - size
        registers = program.registers(before, np.zeros(size, np.int64), False, before)
        cycles = entry.estimated_cycles(before)
        return of_commands(self.config, entry.commands.tobytes(), cycles, registers)

    def counts(self, chosen: Chosen) -> Counts:
        bits = 4 if "formats" in chosen else 8
        passes = self.passes(bits, switches_of(chosen), "speculation" in chosen)
        config = with_sleep(self.config, chosen)
        parts = [(asleep(passes.counts[size], config), n) for size, n in passes.drafted.items()]
        activity = {
            name: sum(times * counts[name] for counts, times in parts)
            for name in parts[0][0].activity
        }
        cycles, reads, writes = (
            round(sum(times * getattr(counts, name) for counts, times in parts))
            for name in ("cycles", "read_bytes", "write_bytes")
        )
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
