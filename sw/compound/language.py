"""SmolLM2, a token of a text: which of its optimisations save what.

A token costs a pass; with drafts several tokens share one. How many, and in passes of which sizes,
is what the policy of `weft generate --draft lookup` decides on texts that the model wrote (those of
`weft bench speculation`), by the cycles of passes on the machine in question. Each pass is counted
at one position. What it does depends on shapes alone, and of its layers each does the same: so
models of two and of three layers with random weights are lowered, and the others are more of the
third one.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hw.config import AcceleratorConfig
from sw.bench import sparsity
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.measure import Step, silent
from sw.bench.perplexity import INTEGERS, compare, integer_log_probabilities
from sw.bench.replay import Replay
from sw.compiler.errors import InputError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.switches import Switches
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.quantise.decoder.options import decoder_weights
from sw.compiler.stream.layout import align
from sw.compound.gains import Chosen
from sw.compound.subject import Subject, switches_of, with_sleep
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Auto
from sw.decoding.sampler import Sampler
from sw.energy import Counts
from sw.energy.counts import asleep, of_commands
from sw.models import smollm2
from sw.models.generator import Generator
from sw.models.language_model import POSITIONS

__all__ = ["SmolLM2"]

SIZES = (1, 4, 8)
"""Tokens of a pass."""
LAYERS = (2, 3)
"""Of the models that are lowered."""
TEXTS = {8: "speculation.json", 4: "speculation_4_bits.json"}
"""Results of `weft bench speculation` by bits of weights."""
NO_TOKEN = -1
NUMBERS = ("cycles", "read_bytes", "write_bytes", "commands")
"""Of `Counts`, beside its activity."""
Number = Any
"""A number, or an array of them."""

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
    """position: at which passes end. sequences: of each kind of text on which accuracy is measured;
    0: all."""

    name = "SmolLM2-135M-Instruct"
    unit = "token"
    shape = DecoderShape(
        hidden=576, heads=9, kv_heads=3, ffn=1536, layers=30, vocabulary=49152, context=POSITIONS
    )
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
        sequences: int = 1,
        step: Step = silent,
    ):
        self.config, self.position, self._step = config, position, step
        self._sequences = sequences
        self.work = f"a token at position {position}"
        self._passes: dict[Key, _Passes] = {}
        if not max(SIZES) < position <= POSITIONS:
            raise InputError(f"--context {position}: give {max(SIZES) + 1} to {POSITIONS}")

    def changes_results(self, chosen: Chosen) -> Chosen:
        return chosen & {"formats"}

    def texts(self, bits: int) -> list[Text]:
        """Prompts, and what the model wrote with weights of so many bits."""
        file = sparsity.RESULTS.with_name(TEXTS[bits])
        prompts = json.loads(file.read_text())["prompts"]
        return [(item["ids"], item["tokens"]) for item in prompts if len(item["tokens"]) > 1]

    @functools.cache  # noqa: B019
    def graph(self, bits: int, context: int, layers: int) -> QuantGraph:
        """A model of the same shapes, of fewer layers."""
        weights = decoder_weights(bits, self.config)
        return decoder(replace(self.shape, context=context, weights=weights, layers=layers))

    # --- passes ---------------------------------------------------------------------------------

    def passes(self, bits: int, switches: Switches, drafts: bool) -> _Passes:
        """What passes take, and how many of them drafts leave."""
        key = bits, switches, drafts
        if key not in self._passes:
            texts = self.texts(bits) if drafts else []
            longest = max((len(prompt) + len(text) for prompt, text in texts), default=0)
            context = align(max(self.position, longest + max(SIZES)), self.shape.key_block)
            sizes = SIZES if drafts else (1,)
            few, more = (
                lower_decoder(self.graph(bits, context, n), self.config, sizes, switches)
                for n in LAYERS
            )
            program = replace(
                more,
                entries={
                    size: replace(
                        entry, estimates=self._all(few.entries[size].estimates, entry.estimates)
                    )
                    for size, entry in more.entries.items()
                },
            )
            drafted = self._drafted(program, texts) if drafts else {1: 1.0}
            counts = {size: self._count((few, more), size) for size in drafted}
            self._passes[key] = _Passes(counts, drafted)
        return self._passes[key]

    @staticmethod
    def _drafted(program: DecoderProgram, texts: Sequence[Text]) -> dict[int, float]:
        """Passes by size, for each token of the texts; a text's first one comes with its prompt."""
        sizes: Counter[int] = Counter()
        for prompt, text in texts:
            session = Replay(program, prompt + text, NO_TOKEN)
            decoding = Decoding(Sampler(), {NO_TOKEN}, Lookup(), Auto())
            answered = list(decoding.answer(session, prompt, len(text)))
            assert answered == text
            sizes.update(step.rows for step in decoding.steps)
        tokens = sum(len(text) - 1 for _, text in texts)
        return {size: passes / tokens for size, passes in sorted(sizes.items())}

    def _all(self, few: Number, more: Number) -> Number:
        """A number of all layers, from those of `LAYERS`."""
        return more + (self.shape.layers - LAYERS[1]) * (more - few) / (LAYERS[1] - LAYERS[0])

    def _count(self, programs: Sequence[DecoderProgram], size: int) -> Counts:
        """Of a pass of all layers."""
        before = self.position - size
        found = []
        for program in programs:
            entry = program.entries[size]
            registers = program.registers(before, np.zeros(size, np.int64), False, before)
            cycles = entry.estimated_cycles(before)
            commands = entry.commands.tobytes()
            found.append(of_commands(self.config, commands, cycles, registers))
        few, more = found
        activity = {name: self._all(few[name], more[name]) for name in more.activity}
        cycles, reads, writes, commands = (
            round(self._all(getattr(few, name), getattr(more, name))) for name in NUMBERS
        )
        return Counts(self.config, cycles, activity, reads, writes, commands, measured=False)

    def counts(self, chosen: Chosen) -> Counts:
        bits = 4 if "formats" in chosen else 8
        passes = self.passes(bits, switches_of(chosen), "speculation" in chosen)
        config = with_sleep(self.config, chosen)
        parts = [(asleep(passes.counts[size], config), n) for size, n in passes.drafted.items()]
        activity = {
            name: sum(times * counts[name] for counts, times in parts)
            for name in parts[0][0].activity
        }
        cycles, reads, writes, commands = (
            round(sum(times * getattr(counts, name) for counts, times in parts)) for name in NUMBERS
        )
        return Counts(config, cycles, activity, reads, writes, commands, measured=False)

    def accuracy(self, chosen: Chosen) -> dict[str, float]:
        """Divergence of the next token's distribution from float32's, in millinats."""
        bits = 4 if "formats" in chosen else 8
        graph = Generator(self.config, step=self._step, bits=bits).graph
        module = smollm2.load().checkpoint.module
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
