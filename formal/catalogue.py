"""All proofs, in the order in which they are listed."""

from __future__ import annotations

from formal import fifo

__all__ = ["PROOFS"]

PROOFS = (*fifo.PROOFS,)
