"""Whether two models mean the same tokens."""

from __future__ import annotations

from sw.compiler.errors import InputError
from sw.compiler.program.decoder_program import DecoderProgram

__all__ = ["check_same_tokens"]


def check_same_tokens(
    small: DecoderProgram, large: DecoderProgram, names: tuple[str, str], need: str
) -> None:
    """Raises `InputError` unless both have as many tokens, and sequences begin alike. names: of
    the models, for the text; need: who needs that, as "drafts need"."""
    mine, others = names
    if small.vocabulary != large.vocabulary:
        raise InputError(
            f"the {mine} has {small.vocabulary} tokens, the {others} {large.vocabulary}: "
            f"{need} the same vocabulary"
        )
    if small.prefix != large.prefix:
        raise InputError(
            f"sequences of the {mine} begin with the tokens {list(small.prefix)}, those of the "
            f"{others} with {list(large.prefix)}: {need} the same"
        )
