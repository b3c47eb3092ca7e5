"""Which passes take the next tokens of a sequence: those that cost least by the cost model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Pass", "Predicting", "cheapest"]

Predicting = Literal["none", "last", "every"]
"""Behind which of the tokens a prediction is wanted."""


@dataclass(frozen=True)
class Pass:
    """A pass over `tokens` tokens in an entry of `rows`; rows that are left hold the last token
    again. reading: without the head."""

    tokens: int
    rows: int
    reading: bool = False


def cheapest(
    program: Any, position: int, tokens: int, *, predicting: Predicting = "last"
) -> list[Pass]:
    """Passes of a decoder's program over `tokens` tokens, from a position on.

    Those that need not predict only read. A pass is padded where that costs less than another
    pass; all of its rows need room in the cache. Behind a window (where the cache is full) tokens
    come one by one, and where attention counts a pass must say how much there was. Found by the
    shortest path over numbers of tokens, from the end on.
    """
    entries, state = sorted(program.entries.values(), key=lambda e: -e.tokens), program.state
    best: list[tuple[int, Pass | None]] = [(0, None)]  # for the last n tokens: cycles, first pass
    for left in range(1, tokens + 1):
        at = position + tokens - left
        options = []
        for entry in entries:
            count = min(entry.tokens, left)
            reading = predicting == "none" or (predicting == "last" and count < left)
            whole = count == entry.tokens and predicting == "last"  # its last row is the last token
            if not state.fits(at, entry.tokens, entry.attention is not None):
                continue
            if not (reading or whole or entry.selected == entry.tokens):
                continue
            cycles = entry.estimated_cycles(at, reading) + best[left - count][0]
            options.append((cycles, Pass(count, entry.tokens, reading)))
        best.append(min(options, key=lambda option: option[0]))
    passes, left = [], tokens
    while (chosen := best[left][1]) is not None:
        passes.append(chosen)
        left -= chosen.tokens
    return passes
