"""What may be chosen about quantisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError

__all__ = ["PRUNING", "Progress", "QuantOptions"]

PRUNING = ("magnitude", "wanda", "sparsegpt")

Progress = Callable[[str, float], None]
"""Called with a text and the part that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class QuantOptions:
    """Options of `quantise`.

    Attributes
    ----------
    key_block: keys of one online softmax step; the program must use the same.
    margin: INT16 ranges hold the largest calibration value times this.
    alphas: how far a channel's scale follows its activations' range instead of its weights'
        (SmoothQuant); 1 uses all levels of every channel.
    clips: fractions of the INT8 ranges tried, falling; above 1 they leave room for values
        that calibration has not seen, below 1 the largest that it has seen saturate.
    floor: no channel's INT8 range is less than this part of the median one.
    extra_share: share of copies added to the hidden channels of feed-forward networks, for
        those of widest range; their number becomes a multiple of `channel_multiple`.
    channel_multiple: see there; the rows of the array it is meant for.
    search_rows: calibration rows on which ranges are searched.
    gptq: round weights one input channel at a time, correcting the others (GPTQ).
    damping: GPTQ's addition to the diagonal, as a fraction of its mean.
    bias_correction: match the mean of every linear's result on the calibration data.
    formats: how the weights of a linear are stored, by its place in the module
        (`encoder.layer.0.output.dense`); dense INT8 where nothing is said. Weights that are 2:4
        sparse already keep their mask, others are pruned. `given_formats` finds those.
        And where inputs have 16 bits: for linears that add to a residual stream what another
        linear or an activation gives.
    pruning: how to choose what a sparse linear keeps: "magnitude", "wanda" or "sparsegpt".
    least_squares: where `formats` compresses anything, fit all weights to the float results
        from the inputs as they are after what went before, and the weights left to what is lost.
    fit_damping: of the least squares, as a fraction of the mean of its diagonal.
    sweeps: of coordinate descent over the weights of the linears in `formats`.
    permute: reorder hidden channels so that a sparse linear behind them keeps more.
    """

    key_block: int = 64
    margin: float = 1.5
    alphas: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
    clips: tuple[float, ...] = (2.0, 1.7, 1.4, 1.2, 1.0, 0.85)
    floor: float = 1.0
    extra_share: float = 0.02
    channel_multiple: int = 16
    search_rows: int = 4096
    gptq: bool = True
    damping: float = 0.01
    bias_correction: bool = True
    formats: Mapping[str, WeightFormat] = field(default_factory=dict)
    pruning: str = "sparsegpt"
    least_squares: bool = True
    fit_damping: float = 0.3
    sweeps: int = 4
    permute: bool = True

    def __post_init__(self) -> None:
        if self.pruning not in PRUNING:
            raise CompileError(f"unknown pruning {self.pruning!r}: {', '.join(PRUNING)}")

    @property
    def compresses(self) -> bool:
        """Whether any weights are stored in less than dense INT8."""
        return any(format.stored != DENSE for format in self.formats.values())

    def extra_channels(self, channels: int) -> int:
        """Copies to add to this many hidden channels."""
        multiple = self.channel_multiple
        whole = round(channels * self.extra_share / multiple) * multiple
        return whole + -channels % multiple if self.extra_share else 0
