"""Real gains and offsets to the integer records of the vector unit."""

from __future__ import annotations

import numpy as np

from hw.vector.golden import MUL_BITS, OFFSET_BITS, SHIFT_BITS, Affine
from sw.compiler.errors import CompileError

__all__ = ["make_affine"]

MUL_LIMIT = (1 << (MUL_BITS - 1)) - 1
OFFSET_LIMIT = (1 << (OFFSET_BITS - 1)) - 1


def make_affine(
    gain: np.ndarray, offset: np.ndarray | float, place: str = "", room: float = 1.0
) -> Affine:
    """Record of `round(x * gain + offset)` for each channel.

    The shift is the largest with which `mul` fits its 16 and the offset its 40 bits, so `mul`
    has 14 or 15 significant bits unless the offset is large. Rounding is half up.
    room: an offset of this size fits as well, in the same units.
    """
    gain, offset = np.broadcast_arrays(
        np.asarray(gain, dtype=np.float64), np.asarray(offset, dtype=np.float64)
    )
    if not (np.isfinite(gain).all() and np.isfinite(offset).all()):
        raise CompileError(f"a requantisation gain or offset is not finite at {place}")
    with np.errstate(divide="ignore"):
        for_gain = np.floor(np.log2((MUL_LIMIT + 0.499) / np.abs(gain)))
        # Half of the range is left to the rounding constant 2^(shift-1).
        for_offset = np.floor(np.log2(OFFSET_LIMIT / 2 / np.maximum(np.abs(offset), room)))
    shift = np.minimum(np.minimum(for_gain, for_offset), (1 << SHIFT_BITS) - 1)
    shift = np.minimum(shift, OFFSET_BITS - 3)
    if (shift < 0).any():
        raise CompileError(f"a requantisation gain or offset is too large at {place}")
    scale = 2.0**shift
    half = np.where(shift > 0, scale / 2, 0)
    return Affine(
        np.rint(gain * scale).astype(np.int64),
        (np.rint(offset * scale) + half).astype(np.int64),
        shift.astype(np.int64),
    )
