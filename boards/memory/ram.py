"""On-chip memory behind an AXI4 port."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from boards.memory.bursts import bad_burst, burst_layout, check_pages
from hw.dma.axi import Axi4Signature, Response

__all__ = ["AxiRam"]


class AxiRam(wiring.Component):
    """AXI4 slave with block RAM: one port reads, one writes, with byte enables.

    Reads and writes each stay in order and do not hold up one another; a write is in the memory
    when it is answered. Bursts beyond the memory, of kinds other than INCR or of narrow beats are
    answered SLVERR and touch nothing. Bursts must not cross pages of 4 KB.

    Latency: 4 cycles from `arvalid` to `rvalid`. Throughput: a beat a cycle each way, from burst
    to burst. Flow control: AXI4.

    Parameters
    ----------
    size: bytes, whole pages of 4 KB. data_bytes: of a beat.

    Members
    -------
    axi: see above.

    Raises `ValueError` for a memory of parts of pages.
    """

    bursts_ahead = 2

    def __init__(self, size: int, data_bytes: int = 4):
        check_pages(size)
        self._size = size
        self._data_bytes = data_bytes
        super().__init__({"axi": In(Axi4Signature(32, data_bytes))})

    def elaborate(self, platform):
        m = Module()
        depth = self._size // self._data_bytes
        m.submodules.cells = cells = memory.Memory(
            shape=unsigned(8 * self._data_bytes), depth=depth, init=[]
        )
        self._read(m, cells.read_port())
        self._write(m, cells.write_port(granularity=8))
        return m

    def _burst(self, m: Module, channel: str) -> tuple[data.View, Signal, Signal]:
        """The burst of AR ("r") or AW ("w") that is carried out, whether there is one, and the
        signal that ends a beat of it."""

        def port(name: str):
            return getattr(self.axi, f"a{channel}{name}")

        layout = burst_layout((self._size // self._data_bytes - 1).bit_length())
        bursts = fifo.SyncFIFO(width=layout.size, depth=self.bursts_ahead)
        m.submodules[f"{channel}_bursts"] = bursts
        new, burst = Signal(layout, name=f"{channel}_new"), Signal(layout, name=f"{channel}_burst")
        bad = bad_burst(self._size, self._data_bytes, port("addr"), port("size"), port("burst"))
        m.d.comb += [
            new.beat.eq(port("addr")[exact_log2(self._data_bytes) :]),
            new.more.eq(port("len")),
            new.error.eq(bad),
            bursts.w_data.eq(new),
            bursts.w_en.eq(port("valid")),
            port("ready").eq(bursts.w_rdy),
        ]
        active, step = Signal(name=f"{channel}_active"), Signal(name=f"{channel}_step")
        m.d.comb += bursts.r_en.eq(~active | (step & (burst.more == 0)))
        with m.If(bursts.r_en):
            m.d.sync += [burst.eq(bursts.r_data), active.eq(bursts.r_rdy)]
        with m.Elif(step):
            m.d.sync += [burst.beat.eq(burst.beat + 1), burst.more.eq(burst.more - 1)]
        return burst, active, step

    def _read(self, m: Module, port) -> None:
        axi = self.axi
        burst, active, step = self._burst(m, "r")
        # Stage 1: address. Stage 2: in the memory's output. Stage 3: in a register, because block
        # RAM is slow to answer. All move together.
        tag = data.StructLayout({"valid": 1, "last": 1, "error": 1})
        read, out = Signal(tag), Signal(tag)
        move = ~out.valid | axi.rready
        m.d.comb += [
            step.eq(active & move),
            port.en.eq(move),
            port.addr.eq(burst.beat),
            axi.rvalid.eq(out.valid),
            axi.rlast.eq(out.last),
            axi.rresp.eq(Mux(out.error, Response.SLVERR, Response.OKAY)),
        ]
        with m.If(move):
            m.d.sync += [
                read.eq(Cat(active, burst.more == 0, burst.error)),
                out.eq(read),
                axi.rdata.eq(port.data),
            ]

    def _write(self, m: Module, port) -> None:
        axi = self.axi
        burst, active, step = self._burst(m, "w")
        m.submodules.answers = answers = fifo.SyncFIFO(width=1, depth=2)
        last = burst.more == 0
        m.d.comb += [
            axi.wready.eq(active & (answers.w_rdy | ~last)),
            step.eq(axi.wvalid & axi.wready),
            answers.w_en.eq(step & last),
            answers.w_data.eq(burst.error),
            axi.bvalid.eq(answers.r_rdy),
            axi.bresp.eq(Mux(answers.r_data, Response.SLVERR, Response.OKAY)),
            answers.r_en.eq(axi.bready),
        ]
        m.d.sync += [
            port.en.eq(Mux(step & ~burst.error, axi.wstrb, 0)),
            port.addr.eq(burst.beat),
            port.data.eq(axi.wdata),
        ]
