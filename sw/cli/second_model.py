"""Another language model beside the one that answers: from the path that a user gives to its
program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sw.compiler.errors import InputError
from sw.compiler.graph.tensor_file import kind_of
from sw.compiler.program.decoder_file import is_decoder_file
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.program_file import FORMAT
from sw.driver import ConfigMismatchError
from sw.models.generator import Generator
from sw.models.language_model import LanguageModel

__all__ = ["SecondModel"]


def _tokens(model: LanguageModel) -> dict[int, str]:
    """Text of each token that the tokenizer knows; `transformers` adds some of its own to GGUF
    files, so numbers that only one has say nothing."""
    return {number: text for text, number in model.tokenizer.get_vocab().items()}


class SecondModel:
    """Read before anything takes minutes; compiled when `program` is first asked for.

    path: of a GGUF file, a folder, or a decoder's program. option: that names it, for errors. need:
    who needs its vocabulary, as "drafts need". others: what else the option may be. Raises
    `InputError`.
    """

    def __init__(
        self,
        path: str,
        generator: Generator,
        step: Callable[[str], Any],
        *,
        option: str,
        need: str,
        others: str,
        window: int = 0,
        evict: str = "oldest",
    ):
        self._program: DecoderProgram | None = None
        self._generator: Generator | None = None
        if not Path(path).exists():
            raise InputError(f"{option} {path}: neither {others} nor a file or folder")
        if is_decoder_file(path):
            self._program = DecoderProgram.load(path)
            if self._program.config.fingerprint() != generator.config.fingerprint():
                raise ConfigMismatchError(self._program.config, generator.config)
            return
        if kind_of(path) == FORMAT:
            raise InputError(
                f"{option} {path} is an encoder's program: it selects no tokens, so it can neither "
                "draft them nor tell how sure it is"
            )
        model, larger = LanguageModel(path), generator.model
        mine, others_ = _tokens(model), _tokens(larger)
        different = [
            number for number in mine.keys() & others_.keys() if mine[number] != others_[number]
        ]
        if different:
            raise InputError(
                f"{option} {path}: {need} the vocabulary of {larger.name}, {len(different)} tokens "
                f"differ: {min(different)} is {mine[min(different)]!r} instead of "
                f"{others_[min(different)]!r}"
            )
        context = min(generator.context, model.context(None))
        self._generator = Generator(
            generator.config, context, step, model, window=window, evict=evict
        )
        self._generator.check()

    @property
    def program(self) -> DecoderProgram:
        """The compiled model."""
        if self._program is None:
            assert self._generator is not None
            self._program = self._generator.program()
        return self._program
