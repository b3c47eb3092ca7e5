"""What may be chosen about the quantisation of a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError

__all__ = ["DecoderOptions", "decoder_weights"]

GROUP = 32
"""Inputs that share a scale and an offset, as in GGUF's Q4_0 and Q4_1."""


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Options of `quantise_decoder`.

    Attributes
    ----------
    lead, key_block: keys of the first and of all other steps of the online softmax.
    margin: 16-bit ranges of operands hold the largest calibration value times this.
    stream_margin: the same for the residual stream.
    rare: share of the calibration tokens that may be beyond the 16-bit ranges. A token that the
        model makes another position 0 of would take bits from all others.
    refine: a unit of the residual stream gets finer behind a layer if that gains so many bits.
    value_margin: the same for attention's values, which have 8 bits.
    gptq: round weights one input after another, correcting the others (GPTQ).
    damping: GPTQ's addition to the diagonal, as a fraction of its mean.
    bias_correction: match the mean of every linear's result on the calibration data.
    weights: format of the linears but the head: INT8, or scaled INT4. Linears behind attentions
        whose heads are no whole tiles keep INT8.
    without: tokens that no text has; the head leaves them out.
    rotate: turn the residual stream first, see `rotation.py`.
    inputs: bits of what linears behind norms read, but for the head. 8: where that changes their
        results by less than `loss`, the square of the change against the square of the result.
    """

    lead: int = 1
    key_block: int = 64
    margin: float = 1.5
    stream_margin: float = 1.2
    rare: float = 1 / 5000
    refine: int = 2
    value_margin: float = 1.1
    gptq: bool = True
    damping: float = 0.01
    bias_correction: bool = True
    weights: WeightFormat = DENSE
    without: tuple[int, ...] = ()
    rotate: bool = False
    inputs: int = 16
    loss: float = 1e-3

    def __post_init__(self) -> None:
        if self.inputs not in (8, 16):
            raise CompileError(f"inputs of {self.inputs} bits: linears of decoders read 8 or 16")
        if self.weights.scaled and (self.rotate or self.inputs == 8):
            raise CompileError(
                "inputs of 8 bits go with weights of 8 bits: those of 4 are the levels of a file, "
                "which a rotation of the residual stream would change"
            )
        if self.weights != DENSE and not self.weights.scaled:
            raise CompileError(
                f"weights {self.weights.name!r}: linears of decoders are int8, or scaled INT4 as "
                "q4/32"
            )


def decoder_weights(bits: int, config: AcceleratorConfig) -> WeightFormat:
    """Format of 8-bit or 4-bit weights of a decoder's linears on this machine.

    Raises `CompileError`.
    """
    if bits == 8:
        return DENSE
    if bits != 4:
        raise CompileError(f"weights of {bits} bits: linears of language models have 8 or 4")
    if not config.scales:
        raise CompileError(
            f"configuration {config.name!r} has no 4-bit weights with scales and offsets: it needs "
            "scales=True"
        )
    return WeightFormat(bits=4, group=GROUP, scaled=True, tile=config.rows)
