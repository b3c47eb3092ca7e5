"""Two AXI4 masters on one slave."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from hw.dma.axi import Axi4Signature

__all__ = ["AxiArbiter"]


class AxiArbiter(wiring.Component):
    """Masters `a` and `b` take turns burst by burst, reads and writes each for themselves.

    Answers come back in the order in which the bursts went out, so a master that does not take
    its answers, or does not give its write data, holds up the other one.

    Latency: 1 cycle for addresses and write data, none for answers. Throughput: a burst and a
    beat a cycle. Flow control: AXI4. At most `outstanding` bursts each way are under way.

    Members
    -------
    a, b: from the masters. out: to the slave.
    """

    outstanding = 32

    def __init__(self, data_bytes: int = 4):
        signature = Axi4Signature(32, data_bytes)
        super().__init__({"a": In(signature), "b": In(signature), "out": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        self._read(m)
        self._write(m)
        return m

    def _owners(self, m: Module, name: str) -> fifo.SyncFIFO:
        """Which master's burst is next: 1 for `b`."""
        m.submodules[name] = owners = fifo.SyncFIFO(width=1, depth=self.outstanding)
        return owners

    def _addresses(self, m: Module, channel: str, *owners: fifo.SyncFIFO) -> None:
        """Passes on bursts of AR ("r") or AW ("w") while there is room in `owners`."""

        def port(master, name: str):
            return getattr(master, f"a{channel}{name}")

        a, b, out = self.a, self.b, self.out
        choice, was_b = Signal(name=f"{channel}_choice"), Signal(name=f"{channel}_was_b")
        room, accept = Signal(name=f"{channel}_room"), Signal(name=f"{channel}_accept")
        m.d.comb += [
            choice.eq(port(b, "valid") & ~(port(a, "valid") & was_b)),
            room.eq(~port(out, "valid") | port(out, "ready")),
            accept.eq(room & (port(a, "valid") | port(b, "valid"))),
            port(a, "ready").eq(room & ~choice),
            port(b, "ready").eq(room & choice),
        ]
        for queue in owners:
            with m.If(~queue.w_rdy):
                m.d.comb += room.eq(0)
            m.d.comb += [queue.w_en.eq(accept), queue.w_data.eq(choice)]
        with m.If(accept):
            m.d.sync += [port(out, "valid").eq(1), was_b.eq(choice)]
            for name in ("addr", "len", "size", "burst"):
                m.d.sync += port(out, name).eq(Mux(choice, port(b, name), port(a, name)))
        with m.Elif(port(out, "ready")):
            m.d.sync += port(out, "valid").eq(0)

    def _read(self, m: Module) -> None:
        out = self.out
        owners = self._owners(m, "read_owners")
        self._addresses(m, "r", owners)
        m.d.comb += [
            out.rready.eq(Mux(owners.r_data, self.b.rready, self.a.rready)),
            owners.r_en.eq(out.rvalid & out.rready & out.rlast),
        ]
        for master, is_b in ((self.a, 0), (self.b, 1)):
            m.d.comb += [
                master.rdata.eq(out.rdata),
                master.rresp.eq(out.rresp),
                master.rlast.eq(out.rlast),
                master.rvalid.eq(out.rvalid & (owners.r_data == is_b)),
            ]

    def _write(self, m: Module) -> None:
        a, b, out = self.a, self.b, self.out
        givers, takers = self._owners(m, "write_givers"), self._owners(m, "write_takers")
        self._addresses(m, "w", givers, takers)

        from_b, given, room = (Signal(name=name) for name in ("from_b", "given", "room"))
        m.d.comb += [
            from_b.eq(givers.r_data),
            room.eq((~out.wvalid | out.wready) & givers.r_rdy),
            a.wready.eq(room & ~from_b),
            b.wready.eq(room & from_b),
            given.eq(room & Mux(from_b, b.wvalid, a.wvalid)),
            givers.r_en.eq(given & Mux(from_b, b.wlast, a.wlast)),
        ]
        with m.If(given):
            m.d.sync += out.wvalid.eq(1)
            for name in ("wdata", "wstrb", "wlast"):
                m.d.sync += getattr(out, name).eq(Mux(from_b, getattr(b, name), getattr(a, name)))
        with m.Elif(out.wready):
            m.d.sync += out.wvalid.eq(0)

        m.d.comb += [
            out.bready.eq(Mux(takers.r_data, b.bready, a.bready)),
            takers.r_en.eq(out.bvalid & out.bready),
        ]
        for master, is_b in ((a, 0), (b, 1)):
            m.d.comb += [
                master.bresp.eq(out.bresp),
                master.bvalid.eq(out.bvalid & (takers.r_data == is_b)),
            ]
