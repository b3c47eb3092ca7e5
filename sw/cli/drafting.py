"""The options `--draft` and `--draft-tokens`: from what the user says to a source of drafts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw.isa import SELECTED
from sw.compiler.errors import InputError
from sw.compiler.program.decoder_file import is_decoder_file
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.decoding import Decoding
from sw.decoding.draft_model import DraftModel
from sw.decoding.drafts import Lookup, Source
from sw.decoding.policy import Auto, Fixed, Policy
from sw.decoding.sampler import Sampler
from sw.driver import ConfigMismatchError, Device
from sw.driver.decoder import LoadedDecoder
from sw.models.generator import Generator
from sw.models.language_model import LanguageModel

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


def _tokens(model: LanguageModel) -> dict[int, str]:
    """Text of each token that the tokenizer knows; `transformers` adds some of its own to GGUF
    files, so numbers that only one has say nothing."""
    return {number: text for text, number in model.tokenizer.get_vocab().items()}


class Drafting:
    """What the user wants, checked in two steps: `prepare` before anything takes minutes, `load`
    when there is a device.

    draft: None, "lookup", or the path of a model or of a decoder's program. tokens: None, "auto" or
    a number. Raises `InputError`.
    """

    def __init__(self, draft: str | None, tokens: str | None):
        self.draft, self.policy = draft, _policy(draft, tokens)
        self._generator: Generator | None = None
        self._program: DecoderProgram | None = None
        self._decoders: list[LoadedDecoder] = []

    def prepare(self, generator: Generator, step: Callable[[str], Any]) -> None:
        """Read the files of a draft model, and compare its vocabulary with the model's."""
        if self.draft in (None, "lookup"):
            return
        if not Path(self.draft).exists():
            raise InputError(f"--draft {self.draft}: neither lookup nor a file or folder")
        if is_decoder_file(self.draft):
            self._program = DecoderProgram.load(self.draft)
            if self._program.config.fingerprint() != generator.config.fingerprint():
                raise ConfigMismatchError(self._program.config, generator.config)
            return
        model, larger = LanguageModel(self.draft), generator.model
        mine, others = _tokens(model), _tokens(larger)
        different = [
            number for number in mine.keys() & others.keys() if mine[number] != others[number]
        ]
        if different:
            raise InputError(
                f"--draft {self.draft}: drafts need the vocabulary of {larger.name}, "
                f"{len(different)} tokens differ: {min(different)} is {mine[min(different)]!r} "
                f"instead of {others[min(different)]!r}"
            )
        context = min(generator.context, model.context(None))
        self._generator = Generator(generator.config, context, step, model)
        self._generator.check()

    def load(
        self, device: Device, generator: Generator, sampler: Sampler
    ) -> tuple[LoadedDecoder, Decoding]:
        """The model on the device, beside the draft model if there is one, and how it decodes."""
        programs = [generator.program()]
        if self._generator is not None:
            self._program = self._generator.program()
        if self._program is not None:
            programs.append(self._program)
        self._decoders = device.load_decoders(*programs)
        decoder, source = self._decoders[0], self._source(sampler)
        return decoder, Decoding(sampler, generator.model.checkpoint.ends, source, self.policy)

    def _source(self, sampler: Sampler) -> Source | None:
        if self.draft is None:
            return None
        if self.draft == "lookup":
            return Lookup()
        larger, smaller = self._decoders
        source = DraftModel(smaller.session(), sampler)
        source.check(larger.program)
        return source

    def counters(self) -> Counter[str]:
        """Of the passes of all models so far; `passes` and `needed_bytes` too."""
        return sum((decoder.counters for decoder in self._decoders), Counter())
