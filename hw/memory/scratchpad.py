"""Scratchpad: the one wrapper of on-chip memories, with banks, arbitration and range check."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2, exact_log2

from hw.cells.block_ram import BlockRam
from hw.delay import DelayLine
from hw.interfaces import ReadPort, WritePort

__all__ = ["Scratchpad"]


class Scratchpad(wiring.Component):
    """Memory of `depth` words that several readers and writers share.

    Each bank has one read and one write port, so reads never compete with writes, and clients of
    the same kind only where they want the same bank (`hw.memory.banks`). A lower port number goes
    first, and port 0 is always ready.

    Latency: `latency` cycles from an accepted read to its data: a register in front of each bank,
    which keeps arbitration off the long ways to its blocks, those of `BlockRam`, and one behind
    the selectors of banks, where a reader is far from some of them. Throughput: one read per bank
    and one write per bank each cycle. Flow control: valid and ready on the address; read data
    cannot be held.

    Writes lie a register longer on their way to a bank than reads: first in one of their own,
    for writers are far away, then in the bank's.

    Collision policy: a read accepted in the cycle after a write of its word was accepted returns
    anything, one in the same cycle the old word. Clients order themselves by completion counts, so
    no program relies on it. With `poison_collisions` a read that returns anything returns the
    complement of what it would, so that a simulation in which it matters gives wrong results.

    An access beyond `depth` is accepted with `out_of_range`; a write of that kind is suppressed.

    Parameters
    ----------
    width: bits of a word. depth: words. granules: parts of a word that are written separately.
    readers, writers: ports. banks: 1, 2 or 4. poison_collisions: for simulation, see above.

    Members
    -------
    read_0, read_1, ..: `ReadPort(width)`. write_0, write_1, ..: `WritePort(width, granules)`.
    """

    latency = 1 + BlockRam.latency + 1

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        granules: int = 1,
        readers: int = 1,
        writers: int = 1,
        banks: int = 2,
        poison_collisions: bool = False,
    ):
        if width % granules:
            raise ValueError(f"a word of {width} bits cannot have {granules} equal granules")
        if banks not in (1, 2, 4):
            raise ValueError(f"banks must be 1, 2 or 4, got {banks}")
        if depth % banks:
            raise ValueError(f"depth {depth} must be a multiple of {banks} banks")
        self.width = width
        self.depth = depth
        self.granules = granules
        self.banks = banks
        self._poison = poison_collisions
        self._readers = [f"read_{i}" for i in range(readers)]
        self._writers = [f"write_{i}" for i in range(writers)]
        super().__init__(
            {name: In(ReadPort(width)) for name in self._readers}
            | {name: In(WritePort(width, granules)) for name in self._writers}
        )

    def _bank(self, port) -> Value:
        """The bank that a port wants, of as many bits as there are banks for."""
        return port.bank[: exact_log2(self.banks)] if self.banks > 1 else Const(0, 1)

    def _place(self, port) -> Value:
        """Where in its bank the word of a port lies."""
        return port.addr[exact_log2(self.banks) : ceil_log2(self.depth)]

    def _write(self, m: Module, name: str, port) -> data.View:
        """What a writer asked for and got, a cycle later. chosen: a bit for each bank."""
        layout = data.StructLayout(
            {
                "chosen": self.banks,
                "mask": self.granules,
                "place": len(self._place(port)),
                "data": self.width,
            }
        )
        write = Signal(layout, name=name, reset_less=True)
        accepted = port.valid & port.ready
        m.d.sync += [
            write.chosen.eq(Cat(accepted & (self._bank(port) == n) for n in range(self.banks))),
            write.mask.eq(Mux(port.out_of_range, 0, port.mask)),
            write.place.eq(self._place(port)),
            write.data.eq(port.data),
        ]
        return write

    def elaborate(self, platform):
        m = Module()
        readers = [getattr(self, name) for name in self._readers]
        writers = [getattr(self, name) for name in self._writers]
        for ports in (readers, writers):
            for i, port in enumerate(ports):
                ahead = Cat(
                    other.valid & (self._bank(other) == self._bank(port)) for other in ports[:i]
                )
                m.d.comb += [
                    port.ready.eq(~ahead.any()),
                    port.out_of_range.eq(port.addr >= self.depth),
                ]

        writes = [self._write(m, name, getattr(self, name)) for name in self._writers]
        words = []
        for bank in range(self.banks):
            cells = BlockRam(self.width, self.depth // self.banks, granules=self.granules)
            m.submodules[f"bank_{bank}"] = cells
            read_en, read_addr = Signal(name="read_en"), Signal.like(cells.read_addr)
            write_en, write_addr = Signal.like(cells.write_en), Signal.like(cells.write_addr)
            value = Signal(self.width)
            # Later assignments win, so the lowest port number is assigned last. What is not read or
            # written may be anything: the first assignment has no condition.
            m.d.comb += read_addr.eq(self._place(readers[-1]))
            for port in reversed(readers):
                with m.If(port.valid & (self._bank(port) == bank)):
                    m.d.comb += [read_en.eq(1), read_addr.eq(self._place(port))]
            m.d.comb += [write_addr.eq(writes[0].place), value.eq(writes[0].data)]
            for write in writes:
                with m.If(write.chosen[bank]):
                    m.d.comb += write_en.eq(write.mask)
            for write in writes[1:]:
                with m.If(write.chosen[bank]):
                    m.d.comb += [write_addr.eq(write.place), value.eq(write.data)]
            reading = Signal(name=f"reading_{bank}")
            writing = Signal.like(write_en, name=f"writing_{bank}")
            read_place = Signal.like(read_addr, name=f"read_place_{bank}", reset_less=True)
            write_place = Signal.like(write_addr, name=f"write_place_{bank}", reset_less=True)
            written = Signal.like(value, name=f"written_{bank}", reset_less=True)
            m.d.sync += [
                reading.eq(read_en),
                read_place.eq(read_addr),
                writing.eq(write_en),
                write_place.eq(write_addr),
                written.eq(value),
            ]
            m.d.comb += [
                cells.read_en.eq(reading),
                cells.read_addr.eq(read_place),
                cells.write_en.eq(writing),
                cells.write_addr.eq(write_place),
                cells.data.eq(written),
            ]
            if self._poison:
                collided = reading & writing.any() & (read_place == write_place)
                collided = DelayLine(m, collided, f"collided_{bank}")
                words.append(cells.o ^ collided[BlockRam.latency].replicate(self.width))
            else:
                words.append(cells.o)

        for i, port in enumerate(readers):
            accepted = DelayLine(m, port.valid & port.ready, f"accepted_{i}", reset=True)
            m.d.comb += port.data_valid.eq(accepted[self.latency])
            if self.banks == 1:
                word = words[0]
            else:
                bank = DelayLine(m, self._bank(port), f"bank_of_read_{i}")
                layout = data.ArrayLayout(self.width, self.banks)
                word = layout(Cat(words))[bank[self.latency - 1]]
            chosen = Signal(self.width, name=f"chosen_{i}", reset_less=True)
            m.d.sync += chosen.eq(word)
            m.d.comb += port.data.eq(chosen)
        return m
