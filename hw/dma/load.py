"""Load unit: executes LOAD commands, DRAM to on-chip memories."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.dma.load_writer import TARGETS, loaded_word
from hw.dma.reader import data_layout, request_layout
from hw.dma.transfer import (
    TransferFront,
    bank_in,
    latch_first_error,
    pitch,
    regions_layout,
    word_beats_log2,
)
from hw.dma.words import LoopWord
from hw.interfaces import UnitStatus, command_stream
from hw.isa import ErrorCode, Memory, Opcode
from hw.memory.banks import BANK_BITS, memory_words

__all__ = ["LoadUnit"]


def _is_beyond(m: Module, config: AcceleratorConfig, place) -> Signal:
    """Whether a word (`LoopWord`) lies beyond its memory."""
    result = Signal(name="is_beyond")
    with m.Switch(place.memory):
        for memory in TARGETS:
            with m.Case(memory):
                m.d.comb += result.eq(place.addr >= memory_words(config, memory))
    return result


class LoadUnit(wiring.Component):
    """
    ```
    for r in range(runs):
        for w in range(words):
            MEM[memory][address + r*run_stride + w*word_stride] =
                DRAM[region][offset + r*dram_stride + w*pitch(memory)]
    ```
    A word is assembled from the beats of its pitch, low bytes first; padding bytes are ignored.
    A mask word takes one bit of each byte: whether it is not zero.

    Commands overlap: while data of up to `commands_in_flight` commands is under way, bursts of
    the next one are requested. Data, writes and completions are in order.

    Latency: 6 cycles from a command to its first request, 1 cycle from the last beat of a
    word to `o`. Throughput: a beat a cycle, also from command to command, where words are taken
    at once. Flow control: streams; a word that waits holds up the beats of the next one.

    Errors: `DMA_WINDOW`, `ONCHIP_RANGE`, `AXI_READ`. After an error, and with `i_halt`, nothing
    more is requested and beats that arrive are discarded; only a reset makes the unit go on. Of a
    command that failed, and of those behind it, words that were complete before may be written,
    and none is reported as done.

    Members
    -------
    i_command: LOAD commands. request, data: to `hw.dma.reader.Reader`.
    o: `loaded_word`, to `hw.dma.load_writer.LoadWriter`; written, waiting: from there.
    regions: `regions_layout`. status, i_halt.
    """

    commands_in_flight = 8

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "i_command": In(command_stream()),
                "request": Out(stream.Signature(request_layout(config))),
                "data": In(stream.Signature(data_layout(config))),
                "o": Out(stream.Signature(loaded_word(config))),
                "written": In(1),
                "waiting": In(1),
                "regions": In(regions_layout(config)),
                "status": Out(UnitStatus()),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        stop = Signal()
        stopped = Signal()  # a cycle later, for what does no harm: requests, and beats to discard
        failed = Signal()  # at once, unlike the error: nothing more is written or done
        m.submodules.front = front = TransferFront(
            config, Opcode.LOAD, commands_ahead=self.commands_in_flight
        )
        wiring.connect(m, wiring.flipped(self.i_command), front.i_command)
        m.d.comb += [
            stop.eq(self.i_halt | self.status.error.valid | failed),
            front.regions.eq(self.regions),
            front.i_halt.eq(stopped),
            self.status.started.eq(front.started),
            self.request.valid.eq(front.burst.valid),
            self.request.payload.address.eq(front.burst.payload.address),
            self.request.payload.beats.eq(front.burst.payload.beats),
            front.burst.ready.eq(self.request.ready),
        ]

        m.d.sync += stopped.eq(stop)

        # --- beats to words ---------------------------------------------------------------------
        bus_bits = 8 * config.bus_bytes
        slots = max(pitch(config, memory) for memory in Memory if memory) // config.bus_bytes
        word = Signal(data.ArrayLayout(unsigned(bus_bits), slots), reset_less=True)
        slot = Signal(range(slots))
        place = Signal(LoopWord)  # of the word in `word`
        target, bank = Signal(len(TARGETS)), Signal(BANK_BITS)
        moves = Signal()
        # A word is here, one that lies in its memory is, one that does not.
        full, good, beyond = Signal(), Signal(), Signal()
        broken = Signal()
        take = Signal()
        coming = front.word.payload
        outside = _is_beyond(m, config, coming)
        log2 = word_beats_log2(m, config, coming.memory)
        last_slot = slot == ((1 << log2) - 1)[: len(slot)]
        leave = Signal()
        m.d.comb += [
            self.data.ready.eq(stopped | (front.word.valid & (~full | leave))),
            take.eq(self.data.valid & front.word.valid & (~full | leave)),
            front.word.ready.eq(take & last_slot),
            self.o.valid.eq(good),
            self.o.payload.target.eq(target),
            self.o.payload.moves.eq(moves),
            self.o.payload.addr.eq(place.addr),
            self.o.payload.bank.eq(bank),
            self.o.payload.last.eq(place.last),
            self.o.payload.data.eq(word),
            leave.eq(self.o.valid & self.o.ready),
        ]
        with m.If(leave):
            m.d.sync += [full.eq(0), good.eq(0)]
        with m.If(take):
            m.d.sync += slot.eq(slot + 1)
            for i in range(slots):
                with m.If(slot == i):
                    m.d.sync += word[i].eq(self.data.payload.data)
            with m.If(last_slot):
                m.d.sync += [
                    slot.eq(0),
                    place.eq(coming),
                    target.eq(Cat(coming.memory == memory for memory in TARGETS)),
                    bank.eq(bank_in(m, config, coming)),
                    moves.eq(coming.memory != place.memory),
                ]
            with m.If(self.data.payload.error):
                m.d.sync += broken.eq(1)
            with m.Elif(last_slot & ~broken):
                m.d.sync += [full.eq(1), good.eq(~outside), beyond.eq(outside)]
        with m.If(beyond):  # it stays, and with it all behind it
            m.d.sync += failed.eq(1)

        m.d.comb += [
            self.status.done.eq(self.written & ~failed),
            self.status.busy.eq(front.busy | full | self.waiting),
        ]
        latch_first_error(
            m,
            self.status.error,
            [
                (beyond & ~failed, ErrorCode.ONCHIP_RANGE, place.index),
                (
                    take & self.data.payload.error & ~stop,
                    ErrorCode.AXI_READ,
                    front.word.payload.index,
                ),
                (front.error.valid, front.error.code, front.error.index),
            ],
        )
        return m
