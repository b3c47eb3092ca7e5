"""A memory with a write port and a read port, registered on its way out as block RAM is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from amaranth import Cat, ClockSignal, Const, Instance, Module, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.cells.technology import Technology, technology_of

__all__ = ["BlockRam", "Piece", "pieces"]

WIDEST = 36
HALF = WIDEST // 2
"""Bits that each of the two ports has; a word of 36 bits takes those of both."""
MODES = ((512, 36), (1024, 18), (2048, 9))
"""Words and bits of a DP16KD, by what it can be configured as. In words of less than nine bits a
write disturbs what is read from its neighbours at the same edge."""
ADDRESS_PINS = 14


@dataclass(frozen=True)
class Piece:
    """Words `first` to `first + words - 1` of a memory, in blocks side by side of `bits` each."""

    first: int
    words: int
    bits: int


@cache
def pieces(depth: int, width: int) -> tuple[Piece, ...]:
    """The fewest DP16KD that hold `depth` words of `width` bits, few pieces, large ones first."""

    def blocks(choice: tuple[Piece, ...]) -> tuple[int, int]:
        return sum(-(-width // piece.bits) for piece in choice), len(choice)

    def fewest(first: int, modes: tuple[tuple[int, int], ...]) -> tuple[Piece, ...]:
        choices = []
        for i, (words, bits) in enumerate(modes):
            rest = () if depth <= first + words else fewest(first + words, modes[: i + 1])
            choices.append((Piece(first, words, bits), *rest))
        return min(choices, key=blocks)

    return fewest(0, MODES)


class BlockRam(wiring.Component):
    """`o = words[read_addr]`, two cycles later; `words[write_addr] = data`.

    Latency: 2 cycles from a read to `o`, of which the second is a register. Throughput: a read and
    a write a cycle. Flow control: none. What a read returns in the cycle of a write to the same
    word is undefined. Without reset; contents are undefined until they are written.

    On ECP5 these are DP16KD with the registers at their outputs (1 ns from the clock instead of
    5.7), which synthesis does not use. Elsewhere it is inferred.

    Parameters
    ----------
    width: bits of a word. depth: words. granules: parts of a word that are written separately.

    Members
    -------
    read_en, read_addr: a read; `o` is anything two cycles after a cycle without. write_en: a bit
    for each granule. write_addr, data: a write.
    """

    latency = 2

    def __init__(self, width: int, depth: int, *, granules: int = 1):
        if width % granules:
            raise ValueError(f"a word of {width} bits cannot have {granules} equal granules")
        self.width = width
        self.depth = depth
        self.granules = granules
        bits = max(ceil_log2(depth), 1)
        super().__init__(
            {
                "read_en": In(1),
                "read_addr": In(bits),
                "write_en": In(granules),
                "write_addr": In(bits),
                "data": In(width),
                "o": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if technology_of(platform) is Technology.ECP5:
            self._ecp5(m)
        else:
            self._portable(m)
        return m

    def _portable(self, m: Module) -> None:
        m.submodules.cells = cells = memory.Memory(
            shape=unsigned(self.width), depth=self.depth, init=[]
        )
        read, write = cells.read_port(), cells.write_port(granularity=self.width // self.granules)
        register = Signal(self.width, reset_less=True)
        m.d.sync += register.eq(read.data)
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_addr),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_addr),
            write.data.eq(self.data),
            self.o.eq(register),
        ]

    def _ecp5(self, m: Module) -> None:
        bits = self.width // self.granules
        parts = pieces(self.depth, bits)
        # Which piece is read, for what comes out two cycles later.
        read_1 = Signal.like(self.read_addr, reset_less=True)
        read_2 = Signal.like(self.read_addr, reset_less=True)
        m.d.sync += [read_1.eq(self.read_addr), read_2.eq(read_1)]
        for granule in range(self.granules):
            data = self.data[bits * granule : bits * (granule + 1)]
            word = self.o[bits * granule : bits * (granule + 1)]
            for i, piece in enumerate(parts):
                enable = self.write_en[granule] & self._within(self.write_addr, piece)
                out = self._blocks(m, f"granule_{granule}_piece_{i}", piece, enable, data)
                if i == 0:
                    m.d.comb += word.eq(out)
                else:  # later ones lie above the first
                    with m.If(self._within(read_2, piece)):
                        m.d.comb += word.eq(out)

    def _within(self, address: Value, piece: Piece) -> Value:
        """Whether an address lies in a piece; they begin at multiples of their size."""
        size = ceil_log2(piece.words)
        upper = address[size:]
        return Const(1, 1) if not len(upper) else upper == piece.first >> size

    def _blocks(self, m: Module, name: str, piece: Piece, enable: Value, data: Value) -> Value:
        """Blocks side by side; returns what they read."""
        width, words = len(data), []
        for number, low in enumerate(range(0, width, piece.bits)):
            word = Signal(piece.bits, name=f"{name}_word_{number}")
            m.submodules[f"{name}_block_{number}"] = self._block(
                piece, enable, data[low : low + piece.bits], word
            )
            words.append(word)
        return Cat(*words)[:width]

    def _block(self, piece: Piece, enable: Value, data: Value, word: Signal) -> Instance:
        zero, one = Const(0, 1), Const(1, 1)
        below = ADDRESS_PINS - ceil_log2(piece.words)
        ports: dict = {}
        for port, address, bytes_written in (("A", self.write_addr, 1), ("B", self.read_addr, 0)):
            # Words of 18 and 36 bits have their byte enables on the pins below the address.
            low = [Const(bytes_written, 1)] * below
            pins = [*low, *address[: ceil_log2(piece.words)]]
            pins += [zero] * (ADDRESS_PINS - len(pins))
            ports |= {f"i_AD{port}{i}": pin for i, pin in enumerate(pins)}
            ports |= {f"i_CS{port}{i}": zero for i in range(3)}
            ports |= {f"i_CLK{port}": ClockSignal(), f"i_RST{port}": zero, f"i_OCE{port}": one}
            ports |= {
                f"p_DATA_WIDTH_{port}": piece.bits,
                f"p_REGMODE_{port}": "OUTREG",
                f"p_WRITEMODE_{port}": "NORMAL",
                f"p_CSDECODE_{port}": "0b000",
                f"p_CLK{port}MUX": f"CLK{port}",
            }
        for i in range(WIDEST):
            half, pin = ("A", i) if i < HALF else ("B", i - HALF)
            ports[f"i_DI{half}{pin}"] = data[i] if i < len(data) else zero
        first = "A" if piece.bits == WIDEST else "B"  # of a narrower word only port B reads
        for i in range(piece.bits):
            half, pin = (first, i) if i < HALF else ("B", i - HALF)
            ports[f"o_DO{half}{pin}"] = word[i]
        return Instance(
            "DP16KD",
            p_RESETMODE="SYNC",
            p_GSR="DISABLED",
            i_CEA=one,
            i_WEA=enable,
            i_CEB=self.read_en,
            i_WEB=zero,
            **ports,
        )
