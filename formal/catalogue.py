"""All proofs, in the order in which they are listed."""

from __future__ import annotations

from formal import buffer, fifo
from formal.control import csr, dispatch, moves, queue, sequencer
from formal.dma import burst, offers, reader, store
from formal.softmax import exp2
from formal.vector import affine

__all__ = ["PROOFS"]

PROOFS = (
    *fifo.PROOFS,
    *buffer.PROOFS,
    *offers.PROOFS,
    *burst.PROOFS,
    *reader.PROOFS,
    *store.PROOFS,
    *sequencer.PROOFS,
    *csr.PROOFS,
    *dispatch.PROOFS,
    *queue.PROOFS,
    *moves.PROOFS,
    *affine.PROOFS,
    *exp2.PROOFS,
)
