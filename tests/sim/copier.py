"""A small design with the accelerator's ports: copies beats of memory, one burst at a time.

Registers: 0 source, 4 destination, 8 beats of the burst (1 to 16), 12 bursts, 16 write: start,
20 status (bit 0 running, bits 3:1 errors seen). `interrupt` is up from the end to the next start.
"""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


def axi_signature(data_bytes: int, address_bits: int = 32) -> wiring.Signature:
    """Master side of AXI4, flat members."""
    d, s = 8 * data_bytes, data_bytes
    return wiring.Signature(
        {
            **{f"{c}{n}": Out(w) for c in ("aw", "ar") for n, w in _address(address_bits).items()},
            **{f"{c}ready": In(1) for c in ("aw", "ar", "w")},
            "wdata": Out(d),
            "wstrb": Out(s),
            "wlast": Out(1),
            "wvalid": Out(1),
            **{"bresp": In(2), "bvalid": In(1), "bready": Out(1)},
            **{"rdata": In(d), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1)},
        }
    )


def _address(bits: int) -> dict[str, int]:
    return {"addr": bits, "len": 8, "size": 3, "burst": 2, "valid": 1}


LITE = wiring.Signature(
    {
        **{"awaddr": Out(12), "awvalid": Out(1), "awready": In(1)},
        **{"wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1)},
        **{"bresp": In(2), "bvalid": In(1), "bready": Out(1)},
        **{"araddr": Out(12), "arvalid": Out(1), "arready": In(1)},
        **{"rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1)},
    }
)


class Copier(wiring.Component):
    """See the module."""

    def __init__(self, data_bytes: int = 8):
        self.data_bytes = data_bytes
        super().__init__(
            {
                "m_axi": Out(axi_signature(data_bytes)),
                "s_axil": In(LITE),
                "interrupt": Out(1),
                "trace": Out(
                    wiring.Signature({"started": Out(1), "done": Out(1), "errors": Out(2)})
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, lite = self.m_axi, self.s_axil
        source, target, beats, bursts = (Signal(32, name=n) for n in ("src", "dst", "n", "bursts"))
        start, running, ended, errors = Signal(), Signal(), Signal(), Signal(3)
        registers = [source, target, beats, bursts, start, Cat(running, errors)]

        write = lite.awvalid & lite.wvalid & ~lite.bvalid
        m.d.comb += [lite.awready.eq(write), lite.wready.eq(write)]
        m.d.sync += start.eq(0)
        m.d.comb += self.interrupt.eq(ended & ~start)
        with m.If(write):
            m.d.sync += lite.bvalid.eq(1)
            with m.Switch(lite.awaddr[2:]):
                for index, register in enumerate(registers[:5]):
                    with m.Case(index):
                        m.d.sync += register.eq(lite.wdata)
        with m.If(lite.bvalid & lite.bready):
            m.d.sync += lite.bvalid.eq(0)
        m.d.comb += lite.arready.eq(~lite.rvalid)
        with m.If(lite.arvalid & lite.arready):
            m.d.sync += lite.rvalid.eq(1)
            with m.Switch(lite.araddr[2:]):
                for index, register in enumerate(registers):
                    with m.Case(index):
                        m.d.sync += lite.rdata.eq(register)
        with m.If(lite.rvalid & lite.rready):
            m.d.sync += lite.rvalid.eq(0)

        m.submodules.buffer = buffer = Memory(shape=8 * self.data_bytes, depth=16, init=[])
        put = buffer.write_port()
        get = buffer.read_port(domain="comb")
        count = Signal(5)
        size = (self.data_bytes - 1).bit_length()
        m.d.comb += [
            axi.araddr.eq(source),
            axi.awaddr.eq(target),
            *(a.eq(beats - 1) for a in (axi.arlen, axi.awlen)),
            *(a.eq(size) for a in (axi.arsize, axi.awsize)),
            *(a.eq(1) for a in (axi.arburst, axi.awburst)),
            put.data.eq(axi.rdata),
            put.addr.eq(count),
            get.addr.eq(count),
            axi.wdata.eq(get.data),
            axi.wstrb.eq(~0),
            axi.wlast.eq(count == beats - 1),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(start):
                    m.d.sync += [running.eq(1), errors.eq(0), ended.eq(0)]
                    m.d.comb += self.trace.started.eq(1)
                    m.next = "AR"
            with m.State("AR"):
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "R"
            with m.State("R"):
                m.d.comb += [axi.rready.eq(1), put.en.eq(axi.rvalid)]
                with m.If(axi.rvalid):
                    m.d.sync += [count.eq(count + 1), errors.eq(errors + axi.rresp[1])]
                    m.d.comb += self.trace.errors.eq(axi.rresp)
                    with m.If(axi.rlast):
                        m.d.sync += count.eq(0)
                        m.next = "AW"
            with m.State("AW"):
                m.d.comb += axi.awvalid.eq(1)
                with m.If(axi.awready):
                    m.next = "W"
            with m.State("W"):
                m.d.comb += axi.wvalid.eq(1)
                with m.If(axi.wready):
                    m.d.sync += count.eq(count + 1)
                    with m.If(axi.wlast):
                        m.d.sync += count.eq(0)
                        m.next = "B"
            with m.State("B"):
                m.d.comb += axi.bready.eq(1)
                with m.If(axi.bvalid):
                    m.d.sync += [
                        errors.eq(errors + axi.bresp[1]),
                        source.eq(source + beats * self.data_bytes),
                        target.eq(target + beats * self.data_bytes),
                        bursts.eq(bursts - 1),
                    ]
                    m.next = "AR"
                    with m.If(bursts == 1):
                        m.d.sync += [running.eq(0), ended.eq(1)]
                        m.d.comb += self.trace.done.eq(1)
                        m.next = "IDLE"
        return m
