"""SDRAM controller: an SDR SDRAM behind an AXI4 port."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from boards.memory.bursts import BurstSplitter, bad_burst, burst_layout, check_pages
from boards.memory.pins import SdramPins
from boards.memory.sdram_commands import BLOCK_BYTES, SdramCommands, make_plan
from boards.memory.sdram_data import ReadData, WriteData
from boards.memory.sdram_part import SdramPart
from hw.dma.axi import Axi4Signature, Response

__all__ = ["SdramController"]


class SdramController(wiring.Component):
    """AXI4 slave with an SDR SDRAM behind it.

    Addresses count, from the least: byte, column, bank, row, so that a row of the next bank
    follows a row. Bursts are cut at blocks of `BLOCK_BYTES`, and `SdramCommands` carries out block
    after block. Reads and writes each stay in order. While both wait, blocks of one direction are
    served `streak` at a time, because each change costs the data bus a few cycles.

    A block is begun only when all its data are here (write) or have room (read): the memory never
    waits for a master, and neither direction for the other. A write is answered when its last
    block is under way; later reads see it.

    Bursts beyond the memory, of kinds other than INCR or of narrow beats are answered SLVERR and
    touch nothing. Bursts must not cross pages of 4 KB, as AXI demands.

    Pins are registers. The data of a READ that is on the pins in cycle n are taken from `dq_i` at
    the end of cycle n + CAS latency + `pad_cycles`. Without delays that is right for a memory that
    takes the READ at the end of cycle n. Real ones want their clock shifted, by how much depends
    on the frequency: `boards.targets.board.read_window`.

    Latency: 15 + CAS latency + `pad_cycles` cycles from `arvalid` to `rvalid` if the row is open.
    Throughput: 2 bytes a cycle less refresh and changes of direction. Flow control: AXI4.

    Parameters
    ----------
    part, hz: memory and clock. data_bytes: of the AXI port, 4, 8 or 16.
    pad_cycles: registers between these pins and the part, there and back.

    Members
    -------
    axi: see above. pins: `SdramPins`.

    Raises `ValueError` for another width, too slow a clock, or a part smaller than a page of 4 KB.
    """

    streak = 4
    bursts_ahead = 4
    answers = 16
    """Write answers that may wait for the master."""

    def __init__(
        self,
        part: SdramPart | None = None,
        *,
        hz: float = 100e6,
        data_bytes: int = 4,
        pad_cycles: int = 0,
    ):
        self.part = part or SdramPart()
        self._data_bytes = data_bytes
        self._pad_cycles = pad_cycles
        make_plan(self.part, hz, data_bytes)  # or it raises
        check_pages(self.part.bytes)
        self._hz = hz
        self._block_beats = BLOCK_BYTES // data_bytes
        super().__init__(
            {"axi": In(Axi4Signature(32, data_bytes)), "pins": Out(SdramPins())},
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.commands = commands = SdramCommands(self.part, self._hz, self._data_bytes)
        pins = self.pins
        m.d.comb += [
            pins.clk_en.eq(1),
            pins.cs.eq(commands.cs),
            pins.ras.eq(commands.ras),
            pins.cas.eq(commands.cas),
            pins.we.eq(commands.we),
            pins.ba.eq(commands.ba),
            pins.a.eq(commands.a),
        ]
        reads, writes = self._chunks(m, "r"), self._chunks(m, "w")
        buffer = {
            "data_bytes": self._data_bytes,
            "block_beats": self._block_beats,
            "depth": 8 * self._block_beats,
        }
        m.submodules.write_data = write_data = WriteData(**buffer)
        m.submodules.read_data = read_data = ReadData(
            **buffer, delay=self.part.cas_latency + self._pad_cycles
        )
        m.submodules.answers = answers = fifo.SyncFIFO(width=1, depth=self.answers)
        axi, beat = self.axi, commands.beat
        m.d.comb += [
            write_data.data.eq(axi.wdata),
            write_data.strobe.eq(axi.wstrb),
            write_data.valid.eq(axi.wvalid),
            axi.wready.eq(write_data.ready),
            write_data.beat.eq(beat),
            write_data.booting.eq(commands.booting),
            pins.dq_o.eq(write_data.dq_o),
            pins.dq_oe.eq(write_data.dq_oe),
            pins.dqm.eq(write_data.dqm),
            read_data.beat.eq(beat),
            read_data.dq_i.eq(pins.dq_i),
            axi.rdata.eq(read_data.data),
            axi.rlast.eq(read_data.last),
            axi.rresp.eq(Mux(read_data.error, Response.SLVERR, Response.OKAY)),
            axi.rvalid.eq(read_data.valid),
            read_data.ready.eq(axi.rready),
            answers.w_en.eq(beat.valid & beat.write & beat.last),
            answers.w_data.eq(beat.error),
            axi.bvalid.eq(answers.r_rdy),
            axi.bresp.eq(Mux(answers.r_data, Response.SLVERR, Response.OKAY)),
            answers.r_en.eq(axi.bready),
        ]

        # --- the next block: what is possible is found out a cycle ahead ----------------------
        beats = Signal(range(self._block_beats + 1))
        read_beats, write_beats = Signal.like(beats), Signal.like(beats)
        write_sized = Signal()  # a comparison with `write_beats` is too much for the same cycle
        read_possible, write_possible, prefer_write, take_write, taken = (
            Signal(name=name)
            for name in ("read_possible", "write_possible", "prefer_write", "take_write", "taken")
        )
        read_taken, write_taken = reads.o.ready, writes.o.ready
        in_flight = 5  # blocks that are accepted and not carried out, or being decided about
        m.d.sync += [
            read_beats.eq(reads.o.payload.end - reads.o.payload.start + 1),
            write_beats.eq(writes.o.payload.end - writes.o.payload.start + 1),
            write_sized.eq(writes.o.valid & ~write_taken),
            read_possible.eq(reads.o.valid & ~read_taken & read_data.room),
            write_possible.eq(
                write_sized
                & ~write_taken
                & (write_data.beats >= write_beats)
                & (answers.level <= self.answers - in_flight)
            ),
        ]
        m.d.comb += [
            take_write.eq(write_possible & (prefer_write | ~read_possible)),
            commands.i.valid.eq(read_possible | write_possible),
            taken.eq(commands.i.valid & commands.i.ready),
            write_taken.eq(taken & take_write),
            read_taken.eq(taken & ~take_write),
            write_data.claim.eq(Mux(write_taken, write_beats, 0)),
            read_data.reserve.eq(Mux(read_taken, read_beats, 0)),
        ]
        chunk = Signal(reads.o.payload.shape())
        request = commands.i.payload
        m.d.comb += [
            chunk.eq(Mux(take_write, writes.o.payload, reads.o.payload)),
            request.start.eq(chunk.start),
            request.end.eq(chunk.end),
            Cat(request.block, request.bank, request.row).eq(chunk.block),
            request.write.eq(take_write),
            request.last.eq(chunk.last),
            request.error.eq(chunk.error),
        ]
        wrote = Signal()
        row = Signal(range(self.streak))  # blocks of this direction, after the first one
        with m.If(taken):
            m.d.sync += wrote.eq(take_write)
            with m.If(take_write != wrote):
                m.d.sync += [row.eq(0), prefer_write.eq(take_write)]
            with m.Elif(row == self.streak - 2):
                m.d.sync += prefer_write.eq(~take_write)
            with m.Else():
                m.d.sync += row.eq(row + 1)
        return m

    def _chunks(self, m: Module, channel: str) -> BurstSplitter:
        """The bursts of AR ("r") or AW ("w"), queued and cut at blocks."""

        def port(name: str):
            return getattr(self.axi, f"a{channel}{name}")

        beat_bits = exact_log2(self.part.bytes // self._data_bytes)
        splitter = BurstSplitter(
            beat_bits=beat_bits,
            block_bits=exact_log2(self._block_beats),
            data_bytes=self._data_bytes,
        )
        layout = burst_layout(beat_bits)
        bursts = fifo.SyncFIFO(width=layout.size, depth=self.bursts_ahead)
        m.submodules[f"{channel}_splitter"] = splitter
        m.submodules[f"{channel}_bursts"] = bursts
        burst = Signal(layout, name=f"{channel}_burst")
        bad = bad_burst(
            self.part.bytes, self._data_bytes, port("addr"), port("size"), port("burst")
        )
        m.d.comb += [
            burst.beat.eq(port("addr")[exact_log2(self._data_bytes) :]),
            burst.more.eq(port("len")),
            burst.error.eq(bad),
            bursts.w_data.eq(burst),
            bursts.w_en.eq(port("valid")),
            port("ready").eq(bursts.w_rdy),
            splitter.i.payload.eq(bursts.r_data),
            splitter.i.valid.eq(bursts.r_rdy),
            bursts.r_en.eq(splitter.i.ready),
        ]
        return splitter
