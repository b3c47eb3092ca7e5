"""A language model of a checkpoint: its texts as tokens, and what it is calibrated on."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sw.compiler.errors import CompileError, InputError, first_line
from sw.models.checkpoint import Checkpoint
from sw.models.corpus import code_texts, long_texts, made_up_texts
from sw.models.gguf_file import GgufCheckpoint
from sw.models.safetensors_folder import SafetensorsCheckpoint

__all__ = ["TOKENS", "LanguageModel"]

TOKENS = 512
"""Of a calibration or evaluation sequence, at most."""
POSITIONS = 2048
"""Of a sequence, where nothing else is asked for."""
WORD = re.compile("[\u0120\u2581][a-z]{3,}")
"""A word of the vocabulary, with the letter that stands for a space in front."""


class LanguageModel:
    """A checkpoint and its tokenizer.

    Parameters
    ----------
    path: a GGUF file; a folder with `config.json`, `.safetensors` files and a tokenizer; or one
        such file beside them. Raises `CompileError` for others, before tensors are read.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            raise CompileError(f"model {path} does not exist")
        folder = path.is_dir() or path.suffix == ".safetensors"
        self.checkpoint: Checkpoint = (SafetensorsCheckpoint if folder else GgufCheckpoint)(path)
        self.name = path.resolve().name if path.is_dir() else path.stem
        self.tokenizer: Any = self.checkpoint.tokenizer

    def context(self, wanted: int | None) -> int:
        """Positions of a sequence. Raises `CompileError` for more than the model has."""
        most = self.checkpoint.positions
        if wanted is not None and wanted > most:
            raise CompileError(f"{self.name} has {most} positions: --context {wanted} is too long")
        return min(POSITIONS, most) if wanted is None else wanted

    # --- tokens ---------------------------------------------------------------------------------

    @property
    def chats(self) -> bool:
        """Whether there is a template for conversations."""
        return bool(self.tokenizer.chat_template)

    @functools.cached_property
    def prefix(self) -> tuple[int, ...]:
        """The token that every sequence begins with. At position 0 some activations of many models
        are hundreds of times larger than elsewhere: integers hold those of the others only.

        That with which the chat template begins; else BOS; else the token that ends texts, behind
        which others begin in training.
        """
        if self.chats:
            talks = (self._ids(self._render(text, text)) for text in ("a question", "What?"))
            firsts = {tuple(ids[:1]) for ids in talks}
            if len(firsts) == 1:
                return firsts.pop()
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return (token,)
        raise CompileError(
            f"{self.name}: its tokenizer has no token that texts begin or end with (bos_token, "
            "eos_token)"
        )

    def tokens(self, text: str) -> list[int]:
        """Token numbers of a text, behind the prefix."""
        ids = self._ids(text)
        begins = tuple(ids[: len(self.prefix)]) == self.prefix
        return ids if begins else [*self.prefix, *ids]

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation up to where the model answers, the prefix among them.

        Without a template, of the only message's text.
        """
        if self.chats:
            return self.tokens(self._template(messages, add_generation_prompt=True))
        if len(messages) != 1:
            raise InputError(f"{self.name} has no chat template: one message only")
        return self.tokens(messages[0]["content"])

    def sequences(self, text: str) -> tuple[list[int], ...]:
        """A text of any length in sequences of `TOKENS` tokens, each behind the prefix."""
        ids, size = self._ids(text), TOKENS - len(self.prefix)
        return tuple([*self.prefix, *ids[n : n + size]] for n in range(0, len(ids), size))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _render(self, question: str, answer: str) -> str:
        return self._template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        )

    def _template(self, messages: Sequence[dict[str, str]], **options: Any) -> str:
        try:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except Exception as error:  # whatever a template raises
            raise InputError(f"{self.name}: its chat template fails: {first_line(error)}") from None
        assert isinstance(text, str)
        return text

    # --- calibration ----------------------------------------------------------------------------

    def words(self) -> tuple[str, ...]:
        """Whole words that the tokenizer knows, the most frequent ones first."""
        vocabulary = self.tokenizer.get_vocab()
        words = sorted((index, word) for word, index in vocabulary.items() if WORD.fullmatch(word))
        return tuple(word[1:] for _, word in words)

    @functools.cached_property
    def calibration(self) -> tuple[list[int], ...]:
        """Some 12,000 tokens: prose, code, conversations of both, and made-up sentences.

        Without a chat template there are no conversations, without whole words in the vocabulary no
        made-up sentences.
        """
        prose, code, words = long_texts(10), code_texts(10, held_out=False), self.words()
        talks, made_up = [], []
        if self.chats:
            question = "What does this do?\n\n"
            talks = [self._render(question + code[8], prose[8]), self._render(prose[9], code[9])]
        if words:
            sentences = made_up_texts(90, words, 4)
            made_up = [" ".join(sentences[n::3]) for n in range(3)]
        texts = [*prose[:8], *code[:8], *talks, *made_up]
        return tuple(self.tokens(text)[:TOKENS] for text in texts)
