"""What an SDR SDRAM is: geometry and timing of a part, as its data sheet gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from amaranth.utils import exact_log2

__all__ = ["WORD_BYTES", "SdramCycles", "SdramPart"]

WORD_BYTES = 2
"""Parts have 16 data pins."""


@dataclass(frozen=True, kw_only=True)
class SdramPart:
    """Geometry and timing of a part with 16 data pins, independent of the clock.

    The defaults are those of a board with 32 MB (IS42S16160G, MT48LC16M16A2, AS4C16M16SA); each
    time is the longest that the -7 and -75 grades of these parts ask for.

    banks, rows (of a bank), columns (words of 2 bytes of a row): powers of two.
    cas_latency: 2 or 3 cycles. Times in nanoseconds:
    t_rcd: activate to read or write. t_rp: precharge to activate. t_ras, t_ras_max: activate to
    precharge. t_rc: activate to activate of one bank. t_rfc: refresh to any command. t_rrd:
    activate to activate of another bank. t_wr: last written word to precharge. retention: every
    row must be refreshed this often. power_up: from a stable clock to the first command.
    t_mrd_cycles: mode register to any command; data sheets give it in cycles.

    Raises `ValueError` for what is no such part.
    """

    banks: int = 4
    rows: int = 8192
    columns: int = 512
    cas_latency: int = 3
    t_rcd: float = 21
    t_rp: float = 21
    t_ras: float = 44
    t_ras_max: float = 100_000
    t_rc: float = 66
    t_rfc: float = 67
    t_rrd: float = 15
    t_wr: float = 15
    t_mrd_cycles: int = 2
    retention: float = 64e6
    power_up: float = 200_000

    def __post_init__(self):
        for name, least, most in (("banks", 2, 4), ("rows", 2, 8192), ("columns", 64, 1024)):
            value = getattr(self, name)
            if value & (value - 1) or not least <= value <= most:
                raise ValueError(f"{name} must be a power of two from {least} to {most}: {value}")
        if self.cas_latency not in (2, 3):
            raise ValueError(f"cas_latency must be 2 or 3: {self.cas_latency}")
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive: {getattr(self, field.name)}")

    @property
    def bytes(self) -> int:
        return self.banks * self.rows * self.columns * WORD_BYTES

    @property
    def bank_bits(self) -> int:
        return exact_log2(self.banks)

    @property
    def row_bits(self) -> int:
        return exact_log2(self.rows)

    @property
    def column_bits(self) -> int:
        return exact_log2(self.columns)

    def cycles(self, hz: float) -> SdramCycles:
        """Timing in cycles of a clock: least times rounded up, greatest times rounded down."""

        def least(ns: float) -> int:
            # A time that is a whole number of cycles must not become one more by rounding.
            return max(1, math.ceil(ns * hz / 1e9 - 1e-6))

        def most(ns: float) -> int:
            return math.floor(ns * hz / 1e9 + 1e-6)

        return SdramCycles(
            rcd=least(self.t_rcd),
            rp=least(self.t_rp),
            ras=least(self.t_ras),
            ras_max=most(self.t_ras_max),
            rc=least(self.t_rc),
            rfc=least(self.t_rfc),
            rrd=least(self.t_rrd),
            wr=least(self.t_wr),
            mrd=self.t_mrd_cycles,
            retention=most(self.retention),
            power_up=least(self.power_up),
        )


@dataclass(frozen=True, kw_only=True)
class SdramCycles:
    """The times of a `SdramPart` in cycles of a clock."""

    rcd: int
    rp: int
    ras: int
    ras_max: int
    rc: int
    rfc: int
    rrd: int
    wr: int
    mrd: int
    retention: int
    power_up: int
