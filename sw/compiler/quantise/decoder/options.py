"""What may be chosen about the quantisation of a decoder."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DecoderOptions"]


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Options of `quantise_decoder`.

    Attributes
    ----------
    lead, key_block: keys of the first and of all other steps of the online softmax.
    margin: 16-bit ranges hold the largest calibration value times this.
    value_margin: the same for attention's values, which have 8 bits.
    gptq: round weights one input after another, correcting the others (GPTQ).
    damping: GPTQ's addition to the diagonal, as a fraction of its mean.
    bias_correction: match the mean of every linear's result on the calibration data.
    """

    lead: int = 1
    key_block: int = 64
    margin: float = 1.5
    value_margin: float = 1.1
    gptq: bool = True
    damping: float = 0.01
    bias_correction: bool = True
