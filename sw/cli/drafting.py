"""The options `--draft` and `--draft-tokens`: from what the user says to a source of drafts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hw.isa import SELECTED
from sw.cli.second_model import SecondModel
from sw.compiler.errors import InputError
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.decoding import Decoding
from sw.decoding.draft_model import DraftModel
from sw.decoding.drafts import Lookup, Source
from sw.decoding.policy import Auto, Fixed, Policy
from sw.decoding.sampler import Sampler
from sw.driver import Device
from sw.driver.decoder import LoadedDecoder
from sw.models.generator import Generator

__all__ = ["Drafting"]


def _policy(draft: str | None, tokens: str | None) -> Policy:
    if tokens is not None and draft is None:
        raise InputError("--draft-tokens needs --draft: where drafts come from")
    if tokens is None or tokens == "auto":
        return Auto()
    if tokens not in map(str, range(1, SELECTED + 1)):
        raise InputError(f"--draft-tokens {tokens}: auto, or a number from 1 to {SELECTED}")
    if int(tokens) >= SELECTED:
        raise InputError(
            f"--draft-tokens {tokens}: the machine predicts behind {SELECTED} tokens of a pass, "
            f"one of which is no draft: {SELECTED - 1} at most"
        )
    return Fixed(int(tokens))


class Drafting:
    """What the user wants, checked in two steps: `prepare` before anything takes minutes, `load`
    when there is a device.

    draft: None, "lookup", or the path of a model or of a decoder's program. tokens: None, "auto" or
    a number. Raises `InputError`.
    """

    def __init__(self, draft: str | None, tokens: str | None):
        self.draft, self.policy = draft, _policy(draft, tokens)
        self._model: SecondModel | None = None
        self._decoders: list[LoadedDecoder] = []

    def prepare(self, generator: Generator, step: Callable[[str], Any]) -> None:
        """Read the files of a draft model, and compare its vocabulary with the model's."""
        if self.draft not in (None, "lookup"):
            self._model = SecondModel(
                self.draft, generator, step, option="--draft", need="drafts need", others="lookup"
            )

    def load(
        self, device: Device, generator: Generator, sampler: Sampler, *others: DecoderProgram
    ) -> tuple[list[LoadedDecoder], Decoding]:
        """The model on the device, others behind it and the draft model if there is one, and how
        it decodes."""
        programs = [generator.program(), *others]
        if self._model is not None:
            programs.append(self._model.program)
        self._decoders = device.load_decoders(*programs)
        source = self._source(sampler)
        ends = generator.model.checkpoint.ends
        return self._decoders, Decoding(sampler, ends, source, self.policy)

    def _source(self, sampler: Sampler) -> Source | None:
        if self.draft is None:
            return None
        if self.draft == "lookup":
            return Lookup()
        larger, smaller = self._decoders[0], self._decoders[-1]
        source = DraftModel(smaller.session(), sampler)
        source.check(larger.program)
        return source

    def counters(self) -> Counter[str]:
        """Of the passes of all models so far; `passes` and `needed_bytes` too."""
        return sum((decoder.counters for decoder in self._decoders), Counter())
