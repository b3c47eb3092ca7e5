"""Load unit: executes LOAD commands, DRAM to on-chip memories."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.dma.offers import OfferQueue
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
from hw.interfaces import UnitStatus, WritePort, command_stream
from hw.isa import ErrorCode, Memory, Opcode
from hw.memory.banks import memory_words

__all__ = ["LoadUnit"]

TARGETS = (
    Memory.ACTIVATION,
    Memory.WEIGHT,
    Memory.RESIDUAL,
    Memory.PARAM0,
    Memory.PARAM1,
    Memory.MASK,
)


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

    Latency: 6 cycles from a command to its first request, 3 cycles from the last beat of a
    word to its write. Throughput: a beat a cycle, also from command to command, where the memory
    accepts writes at once. Flow control: streams and `WritePort`; writes that wait hold up
    the beats when five words are there.

    Errors: `DMA_WINDOW`, `ILLEGAL_COMMAND` (unaligned offset or stride), `ONCHIP_RANGE`,
    `AXI_READ`. After an error, and with `i_halt`, nothing is requested or written and beats that
    arrive are discarded; only a reset makes the unit go on.

    Members
    -------
    i_command: LOAD commands. request, data: to `hw.dma.reader.Reader`.
    activation_write, weight_write, residual_write, param0_write, param1_write, mask_write: at
        most one is valid at a time. regions: `regions_layout`. status, i_halt.
    """

    commands_in_flight = 8

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        granules = config.rows // config.lanes
        weight_granules = config.weight_bytes // config.lanes
        super().__init__(
            {
                "i_command": In(command_stream()),
                "request": Out(stream.Signature(request_layout(config))),
                "data": In(stream.Signature(data_layout(config))),
                "activation_write": Out(WritePort(8 * config.rows, granules)),
                "weight_write": Out(WritePort(8 * config.weight_bytes, weight_granules)),
                "residual_write": Out(WritePort(8 * config.residual_pitch)),
                "param0_write": Out(WritePort(8 * config.param_pitch)),
                "param1_write": Out(WritePort(8 * config.param_pitch)),
                "mask_write": Out(WritePort(config.columns)),
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
        full, broken = Signal(), Signal()
        # A word waits here for its memory: so a refusal does not reach back to the bus.
        waiting_word = data.StructLayout(
            {"place": LoopWord, "beyond": 1, "word": unsigned(bus_bits * slots)}
        )
        m.submodules.words = words = OfferQueue(waiting_word, len(TARGETS))
        take = Signal()
        log2 = word_beats_log2(m, config, front.word.payload.memory)
        last_slot = slot == ((1 << log2) - 1)[: len(slot)]
        m.d.comb += [
            self.data.ready.eq(stopped | (front.word.valid & (~full | words.room))),
            take.eq(self.data.valid & front.word.valid & (~full | words.room)),
            front.word.ready.eq(take & last_slot),
            words.write.eq(full & words.room),
            words.i.place.eq(place),
            words.i_bank.eq(bank_in(m, config, place)),
            words.i.word.eq(word),
            words.i.beyond.eq(_is_beyond(m, config, place)),
            words.i_target.eq(Cat(place.memory == target for target in TARGETS)),
            words.withdraw.eq(stop),
        ]
        with m.If(words.room):
            m.d.sync += full.eq(0)
        with m.If(take):
            m.d.sync += slot.eq(slot + 1)
            for i in range(slots):
                with m.If(slot == i):
                    m.d.sync += word[i].eq(self.data.payload.data)
            with m.If(last_slot):
                m.d.sync += [slot.eq(0), place.eq(front.word.payload)]
            with m.If(self.data.payload.error):
                m.d.sync += broken.eq(1)
            with m.Elif(last_slot & ~broken):
                m.d.sync += full.eq(1)

        # --- writes: the first word is offered, to one of the memories ---------------------------
        head = words.o
        nonzero = Cat(head.word[8 * i : 8 * i + 8].any() for i in range(config.columns))
        accepted, written = Signal(len(TARGETS)), Signal()
        ports = (
            self.activation_write,
            self.weight_write,
            self.residual_write,
            self.param0_write,
            self.param1_write,
            self.mask_write,
        )
        for i, (target, port) in enumerate(zip(TARGETS, ports, strict=True)):
            m.d.comb += [
                port.valid.eq(words.offered[i]),
                port.addr.eq(head.place.addr),
                port.bank.eq(words.bank),
                port.data.eq(nonzero if target == Memory.MASK else head.word),
                port.mask.eq(~0),
                accepted[i].eq(port.valid & port.ready),
            ]
        m.d.comb += [
            written.eq(accepted.any()),
            words.accepted.eq(written),
        ]
        with m.If(written & head.beyond):
            m.d.sync += failed.eq(1)

        m.d.comb += [
            self.status.done.eq(written & head.place.last & ~head.beyond & ~failed),
            self.status.busy.eq(front.busy | full | ~words.empty),
        ]
        latch_first_error(
            m,
            self.status.error,
            [
                (written & head.beyond, ErrorCode.ONCHIP_RANGE, head.place.index),
                (
                    take & self.data.payload.error & ~stop,
                    ErrorCode.AXI_READ,
                    front.word.payload.index,
                ),
                (front.error.valid, front.error.code, front.error.index),
            ],
        )
        return m
