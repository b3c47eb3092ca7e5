"""Scratchpad: the one wrapper of on-chip memories, with banks, arbitration and range check."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2

from hw.interfaces import ReadPort, WritePort

__all__ = ["Scratchpad"]


class Scratchpad(wiring.Component):
    """Memory of `depth` words that several readers and writers share.

    Each bank has one read and one write port, so reads never compete with writes, and clients of
    the same kind only where they want the same bank. A lower port number goes first, and port 0
    is always ready.

    With two banks, the bank of a word is the parity of its address bits but each fifth, so
    `n, n+1, n+2, ..` and panel strides alike (`n, n+32, n+64, ..`) change banks often. A writer
    that walks along a row of panels, a write every other cycle (the vector unit, two groups a
    word), then leaves at least two thirds of the cycles to one that walks along a panel (a load),
    for every stride that we tried; the lowest bit alone leaves half with odd strides, and next to
    nothing where every cycle brings a write.

    Latency: `latency` cycles from an accepted read to its data. Throughput: one read per bank
    and one write per bank each cycle. Flow control: valid and ready on the address; read data
    cannot be held.

    Collision policy: a read accepted in the cycle in which its word is written returns anything.
    Clients order themselves by completion counts, so no program relies on it. With
    `poison_collisions` such a read returns the complement of what it would, so that a simulation
    in which it matters gives wrong results.

    An access beyond `depth` is accepted with `out_of_range`; a write of that kind is suppressed.

    Parameters
    ----------
    width: bits of a word. depth: words. granules: parts of a word that are written separately.
    readers, writers: ports. banks: 1, 2 or 4. poison_collisions: for simulation, see above.

    Members
    -------
    read_0, read_1, ..: `ReadPort(width)`. write_0, write_1, ..: `WritePort(width, granules)`.
    """

    latency = 1

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

    def _place(self, addr) -> tuple:
        """Bank of a word, and its address there: addr and addr ^ 1 lie in different banks."""
        used = addr[: ceil_log2(self.depth)]
        if self.banks == 1:
            return 0, used
        if self.banks == 2:
            return self._parity(used), used[1:]
        return Cat(used[0], self._parity(used[1:])), used[2:]

    @staticmethod
    def _parity(bits):
        return Cat(bits[i] for i in range(len(bits)) if i % 5 != 4).xor()

    def elaborate(self, platform):
        m = Module()
        readers = [getattr(self, name) for name in self._readers]
        writers = [getattr(self, name) for name in self._writers]
        for port in readers + writers:
            m.d.comb += port.out_of_range.eq(port.addr >= self.depth)
            m.d.comb += port.ready.eq(1)

        bank_data = []
        for bank in range(self.banks):
            cells = memory.Memory(
                shape=unsigned(self.width), depth=self.depth // self.banks, init=[]
            )
            m.submodules[f"bank_{bank}"] = cells
            read = cells.read_port()
            write = cells.write_port(granularity=self.width // self.granules)

            # Later assignments win, so the lowest port number is assigned last.
            for port in reversed(readers):
                where, address = self._place(port.addr)
                with m.If(port.valid & (where == bank)):
                    m.d.comb += [read.en.eq(1), read.addr.eq(address)]
            for port in reversed(writers):
                where, address = self._place(port.addr)
                with m.If(port.valid & (where == bank)):
                    m.d.comb += [
                        write.en.eq(Mux(port.out_of_range, 0, port.mask)),
                        write.addr.eq(address),
                        write.data.eq(port.data),
                    ]
            for ports in (readers, writers):
                for i, port in enumerate(ports):
                    ahead = Cat(
                        other.valid & (self._place(other.addr)[0] == bank) for other in ports[:i]
                    )
                    with m.If((self._place(port.addr)[0] == bank) & ahead.any()):
                        m.d.comb += port.ready.eq(0)

            if self._poison:
                collided = Signal(name=f"collided_{bank}")
                m.d.sync += collided.eq(read.en & write.en.any() & (read.addr == write.addr))
                bank_data.append(read.data ^ collided.replicate(self.width))
            else:
                bank_data.append(read.data)

        for i, port in enumerate(readers):
            m.d.sync += port.data_valid.eq(port.valid & port.ready)
            if self.banks == 1:
                m.d.comb += port.data.eq(bank_data[0])
            else:
                where = Signal(range(self.banks), name=f"bank_of_read_{i}", reset_less=True)
                m.d.sync += where.eq(self._place(port.addr)[0])
                m.d.comb += port.data.eq(
                    data.ArrayLayout(self.width, self.banks)(Cat(bank_data))[where]
                )
        return m
