"""Long texts that calibration has not seen."""

from __future__ import annotations

from sw.compiler.errors import InputError

__all__ = ["KINDS", "long_text"]

KINDS = ("prose", "code")


def long_text(kind: str, tokens: int) -> list[int]:
    """So many tokens of SmolLM2, its prefix first."""
    from sw.models.corpus import code_texts, evaluation_texts
    from sw.models.smollm2 import load

    if kind == "code":
        texts = code_texts(1, held_out=True, characters=8 * tokens)
    else:
        texts = (*evaluation_texts("everyday-longest"), *evaluation_texts("technical-long"))
    ids = load().tokens("\n\n".join(texts))
    if len(ids) < tokens:
        raise InputError(f"the {kind} has {len(ids)} tokens: give a smaller --context")
    return ids[:tokens]
