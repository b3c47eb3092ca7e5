"""Two AXI4 masters on one slave."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from hw.buffer import StreamBuffer
from hw.dma.axi import Axi4Signature

__all__ = ["AxiArbiter"]


class _Owners(wiring.Component):
    """Which master's bursts are under way, in order: `owner` is 1 for `b`, while `valid`.

    Latency: 2 cycles from `add` to `valid`. Throughput: a burst a cycle. Flow control: no `add`
    while `full`, which rises only after an `add`; `done` only while `valid`. All that leaves is a
    register.
    """

    def __init__(self, depth: int):
        self._depth = depth
        super().__init__(
            {
                "add": In(1),
                "new": In(1),
                "full": Out(1),
                "owner": Out(1),
                "valid": Out(1),
                "done": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFO(width=1, depth=self._depth)
        m.submodules.head = head = StreamBuffer(1)
        m.d.comb += [
            queue.w_data.eq(self.new),
            queue.w_en.eq(self.add),
            head.i.payload.eq(queue.r_data),
            head.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(head.i.ready),
            self.owner.eq(head.o.payload),
            self.valid.eq(head.o.valid),
            head.o.ready.eq(self.done),
        ]
        # One that is added in this cycle is not in the level yet. Without one the level does not
        # rise, so that room that there was stays.
        with m.If(self.add | self.full):
            m.d.sync += self.full.eq(queue.level >= self._depth - 1)
        return m


class AxiArbiter(wiring.Component):
    """Masters `a` and `b` take turns burst by burst, reads and writes each for themselves.

    Answers come back in the order in which the bursts went out, so a master that does not take
    its answers, or does not give its write data, holds up the other one.

    Whose turn it is, is decided a cycle ahead, so that neither `ready` of a master's addresses and
    write data depends on a `valid`. Everything else passes through within the cycle, for which
    registers decide: an `AxiBuffer` behind `out` makes the paths end.

    Latency: none, but 1 cycle for the first burst after one of the other master, and 2 from a
    burst to its write data. Throughput: a burst and a beat a cycle. Flow control: AXI4. At most
    `outstanding` bursts each way are under way.

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

    def _owners(self, m: Module, name: str) -> _Owners:
        # Two more are in front of the queue.
        m.submodules[name] = owners = _Owners(self.outstanding - 2)
        return owners

    def _addresses(self, m: Module, channel: str, *owners: _Owners) -> None:
        """Passes on bursts of AR ("r") or AW ("w") while there is room in `owners`."""

        def port(master, name: str):
            return getattr(master, f"a{channel}{name}")

        a, b, out = self.a, self.b, self.out
        turn = Signal(name=f"{channel}_turn")  # 1 for `b`
        room, accept = Signal(name=f"{channel}_room"), Signal(name=f"{channel}_accept")
        m.d.comb += [
            room.eq(~Cat(queue.full for queue in owners).any()),
            port(out, "valid").eq(room & Mux(turn, port(b, "valid"), port(a, "valid"))),
            accept.eq(port(out, "valid") & port(out, "ready")),
            port(a, "ready").eq(port(out, "ready") & room & ~turn),
            port(b, "ready").eq(port(out, "ready") & room & turn),
        ]
        for name in ("addr", "len", "size", "burst"):
            m.d.comb += port(out, name).eq(Mux(turn, port(b, name), port(a, name)))
        for queue in owners:
            m.d.comb += [queue.add.eq(accept), queue.new.eq(turn)]
        with m.If(turn):
            with m.If(port(a, "valid") & (accept | ~port(b, "valid"))):
                m.d.sync += turn.eq(0)
        with m.Elif(port(b, "valid") & (accept | ~port(a, "valid"))):
            m.d.sync += turn.eq(1)

    def _read(self, m: Module) -> None:
        out = self.out
        owners = self._owners(m, "read_owners")
        self._addresses(m, "r", owners)
        m.d.comb += [
            out.rready.eq(owners.valid & Mux(owners.owner, self.b.rready, self.a.rready)),
            owners.done.eq(out.rvalid & out.rready & out.rlast),
        ]
        for master, is_b in ((self.a, 0), (self.b, 1)):
            m.d.comb += [
                master.rdata.eq(out.rdata),
                master.rresp.eq(out.rresp),
                master.rlast.eq(out.rlast),
                master.rvalid.eq(out.rvalid & owners.valid & (owners.owner == is_b)),
            ]

    def _write(self, m: Module) -> None:
        a, b, out = self.a, self.b, self.out
        givers, takers = self._owners(m, "write_givers"), self._owners(m, "write_takers")
        self._addresses(m, "w", givers, takers)

        from_b = givers.owner
        m.d.comb += [
            out.wvalid.eq(givers.valid & Mux(from_b, b.wvalid, a.wvalid)),
            a.wready.eq(out.wready & givers.valid & ~from_b),
            b.wready.eq(out.wready & givers.valid & from_b),
            givers.done.eq(out.wvalid & out.wready & out.wlast),
        ]
        for name in ("wdata", "wstrb", "wlast"):
            m.d.comb += getattr(out, name).eq(Mux(from_b, getattr(b, name), getattr(a, name)))

        m.d.comb += [
            out.bready.eq(takers.valid & Mux(takers.owner, b.bready, a.bready)),
            takers.done.eq(out.bvalid & out.bready),
        ]
        for master, is_b in ((a, 0), (b, 1)):
            m.d.comb += [
                master.bresp.eq(out.bresp),
                master.bvalid.eq(out.bvalid & takers.valid & (takers.owner == is_b)),
            ]
