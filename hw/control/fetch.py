"""Fetch: reads the program in bursts and cuts the beats into commands."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.config import AcceleratorConfig
from hw.control.dispatch import FetchedCommand
from hw.dma.reader import data_layout, request_layout
from hw.interfaces import INDEX_BITS
from hw.isa import COMMAND_BYTES, ErrorCode

__all__ = ["Fetch"]

BURSTS = 4
"""Bursts of room: one being consumed, the others hide the memory latency."""


class Fetch(wiring.Component):
    """Streams the commands `0 .. i_commands - 1` at `i_base`, then an error entry.

    What follows the last command is an entry with `PROGRAM_END`; a program that is longer than
    its region is a single entry with `DMA_WINDOW`; a command of which a beat came with a bus
    error carries `AXI_READ`. So errors stay in program order, and a command that was fetched in
    vain does no harm.

    A burst is requested only when the buffer has room for all of it, so that waiting commands
    never hold up the other readers' data.

    Latency: that of the memory and 6 cycles. Throughput: a burst in three cycles, a beat a cycle;
    a command takes 32 / `bus_bytes` cycles, at least one. Flow control: streams; starts by itself
    when `i_halt` falls after a reset; while `i_halt`, nothing is requested and what arrives is
    discarded.

    Members
    -------
    request, data: client side of the reader. i_base, i_size: window of region PROGRAM.
    i_commands: length of the program. o: commands for dispatch.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "request": Out(stream.Signature(request_layout(config))),
                "data": In(stream.Signature(data_layout(config))),
                "i_base": In(config.address_bits),
                "i_size": In(32),
                "i_commands": In(32),
                "i_halt": In(1),
                "o": Out(stream.Signature(FetchedCommand)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        bus = config.bus_bytes
        capacity = BURSTS * config.burst_bytes // bus
        burst_beats = config.burst_bytes // bus
        program_bits = 32 + (COMMAND_BYTES - 1).bit_length()

        # --- requests -----------------------------------------------------------------------------
        address = Signal(config.address_bits)
        remaining = Signal(range((1 << program_bits) // bus + 1))
        room = Signal(range(capacity + 1), init=capacity)
        in_block = Signal(range(burst_beats + 1))  # beats up to the next aligned block
        beats = Signal(range(burst_beats + 1))
        roomy = Signal()  # a cycle late, but so is the next burst
        consumed = Signal()
        program_bytes = Signal(program_bits)
        fits = Signal()
        refused = Signal()
        ended = Signal()
        m.d.comb += [
            program_bytes.eq(self.i_commands * COMMAND_BYTES),
            self.request.payload.address.eq(address),
            self.request.payload.beats.eq(beats),
        ]
        m.d.sync += roomy.eq(room >= burst_beats)
        # Nothing but this and the state depends on `ready`, which comes late.
        asked = Signal()
        m.d.sync += [
            asked.eq(self.request.valid & self.request.ready),
            room.eq(room - Mux(asked, beats, 0) + consumed),
        ]
        with m.FSM() as requests:
            with m.State("start"):
                start = self.i_base[exact_log2(bus) : exact_log2(config.burst_bytes)]
                m.d.sync += [
                    address.eq(self.i_base),
                    in_block.eq(burst_beats - start),
                    remaining.eq((program_bytes + bus - 1) >> exact_log2(bus)),
                    fits.eq(program_bytes <= self.i_size),
                ]
                with m.If(~self.i_halt):
                    m.next = "check"
            with m.State("check"):
                with m.If(fits):
                    m.d.sync += ended.eq(self.i_commands == 0)
                    m.next = "measure"
                with m.Else():
                    m.d.sync += refused.eq(1)
                    m.next = "refuse"
            with m.State("measure"):  # the length of the next burst
                m.d.sync += beats.eq(Mux(remaining < in_block, remaining, in_block))
                with m.If(remaining != 0):
                    m.next = "ask"
            with m.State("ask"):
                m.d.comb += self.request.valid.eq(roomy & ~self.i_halt)
                with m.If(self.request.valid & self.request.ready):
                    m.next = "advance"
            with m.State("advance"):  # `asked` is 1
                m.next = "measure"
            with m.State("refuse"):
                pass
        with m.If(asked):
            m.d.sync += [
                address.eq(address + (beats << exact_log2(bus))),
                remaining.eq(remaining - beats),
                in_block.eq(burst_beats),  # a burst that is not the last ends a block
            ]

        # --- beats to commands --------------------------------------------------------------------
        m.submodules.buffer = buffer = fifo.SyncFIFOBuffered(width=8 * bus + 1, depth=capacity)
        m.d.comb += [
            buffer.w_data.eq(Cat(self.data.payload.data, self.data.payload.error)),
            buffer.w_en.eq(self.data.valid),
            self.data.ready.eq(1),  # there is room: it was asked for
        ]
        beat, beat_error = buffer.r_data[: 8 * bus], buffer.r_data[8 * bus]
        entry = self.o.payload.entry
        word = Signal(8 * COMMAND_BYTES)
        failed = Signal()
        valid = Signal()
        index = Signal(INDEX_BITS)
        left = Signal(32)  # commands, the one at `o` included
        free = ~valid | self.o.ready
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [valid.eq(0), index.eq(index + 1)]
        if bus <= COMMAND_BYTES:
            parts = COMMAND_BYTES // bus
            part = Signal(range(parts))
            m.d.comb += buffer.r_en.eq(buffer.r_rdy & free)
            with m.If(buffer.r_en):
                m.d.sync += [
                    word.eq(Cat(word, beat)[8 * bus :]),
                    failed.eq(beat_error | (failed & (part != 0))),
                    part.eq(Mux(part == parts - 1, 0, part + 1)),
                    valid.eq(part == parts - 1),
                ]
        else:
            parts = bus // COMMAND_BYTES
            part = Signal(range(parts))
            with m.If(buffer.r_rdy & free):
                m.d.comb += buffer.r_en.eq(part == parts - 1)
                m.d.sync += [
                    word.eq(beat.word_select(part, 8 * COMMAND_BYTES)),
                    failed.eq(beat_error),
                    part.eq(part + 1),
                    valid.eq(1),
                ]
        m.d.comb += [
            consumed.eq(buffer.r_en),
            entry.word.eq(word),
            entry.index.eq(index),
        ]
        # What stands behind the last command.
        with m.If(requests.ongoing("start")):
            m.d.sync += left.eq(self.i_commands)
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += left.eq(left - 1)
            with m.If(left == 1):
                m.d.sync += ended.eq(1)
        m.d.comb += self.o.valid.eq(valid | ended | refused)
        with m.If(refused):
            m.d.comb += self.o.payload.code.eq(ErrorCode.DMA_WINDOW)
        with m.Elif(ended):
            m.d.comb += self.o.payload.code.eq(ErrorCode.PROGRAM_END)
        with m.Elif(failed):
            m.d.comb += self.o.payload.code.eq(ErrorCode.AXI_READ)
        return m
