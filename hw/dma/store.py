"""Store unit: executes STORE commands, on-chip memories to DRAM."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.buffer import StreamBuffer
from hw.config import AcceleratorConfig
from hw.dma.axi import Axi4WriteSignature, Burst
from hw.dma.transfer import (
    TransferFront,
    bank_in,
    latch_first_error,
    pitch,
    regions_layout,
    word_beats_log2,
)
from hw.fifo import CountedFifo
from hw.interfaces import ADDRESS_BITS, INDEX_BITS, ReadPort, UnitStatus, command_stream
from hw.isa import ErrorCode, Memory, Opcode
from hw.memory.banks import BANK_BITS, memory_words

__all__ = ["StoreUnit"]

SOURCES = (Memory.ACTIVATION, Memory.WEIGHT, Memory.RESIDUAL)


class StoreUnit(wiring.Component):
    """
    ```
    for r in range(runs):
        for w in range(words):
            DRAM[region][offset + r*dram_stride + w*pitch(memory)] =
                MEM[memory][address + r*run_stride + w*word_stride]     # padding bytes 0
    ```
    A command is done when the bus has acknowledged its last burst. Commands overlap: words of
    the next one are read and its bursts issued while acknowledgements are outstanding, at most
    `max_outstanding` of them.

    Latency: 6 cycles from a command to `awvalid`, 10 to `wvalid`. Throughput: a beat a cycle,
    also from command to command, where the memory delivers. Flow control: AXI4 and `ReadPort`.

    Errors: `DMA_WINDOW` (also for a read-only region), `ONCHIP_RANGE`, `AXI_WRITE`. After an error,
    and with `i_halt`, no burst is issued and issued ones are completed with all byte strobes 0;
    only a reset makes the unit go on.

    Members
    -------
    i_command: STORE commands. activation_read, weight_read, residual_read: at most one is valid
        at a time; they must have the same latency. axi: write half of the AXI4 master.
    regions: `regions_layout`. status, i_halt. quiet: no write is offered or outstanding.
    """

    commands_ahead = 2
    words_ahead = 16
    """Words asked for and not yet on the bus: 9 for a word a cycle, the rest for bank conflicts."""

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        super().__init__(
            {
                "i_command": In(command_stream()),
                "activation_read": Out(ReadPort(8 * config.rows)),
                "weight_read": Out(ReadPort(8 * config.weight_bytes)),
                "residual_read": Out(ReadPort(8 * config.residual_pitch)),
                "axi": Out(Axi4WriteSignature(config.address_bits, config.bus_bytes)),
                "regions": In(regions_layout(config)),
                "status": Out(UnitStatus()),
                "i_halt": In(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        axi = self.axi
        stop = Signal()
        stopped = Signal()  # a cycle later, for what does no harm: requests and reads
        failed = Signal()  # at once, unlike the error: nothing more is sent or done
        m.submodules.front = front = TransferFront(
            config, Opcode.STORE, commands_ahead=self.commands_ahead
        )
        wiring.connect(m, wiring.flipped(self.i_command), front.i_command)
        m.d.comb += [
            stop.eq(self.i_halt | self.status.error.valid | failed),
            front.regions.eq(self.regions),
            front.i_halt.eq(stopped),
            self.status.started.eq(front.started),
        ]

        m.d.sync += stopped.eq(stop)

        # --- addresses: a burst is accounted for from here on -----------------------------------
        burst = front.burst.payload
        outstanding = config.max_outstanding
        acknowledged = data.StructLayout({"last": 1, "index": INDEX_BITS})
        m.submodules.lengths = lengths = CountedFifo(len(burst.beats), max(2, outstanding))
        m.submodules.answers = answers = CountedFifo(acknowledged.size, max(2, outstanding))
        # Bursts that are not acknowledged: those whose beats have not been sent are among them.
        unanswered, unanswered_next = (
            Signal(range(outstanding + 1), name=name) for name in ("unanswered", "unanswered_next")
        )
        may_issue = Signal(init=1)
        offered = Signal()
        m.d.comb += [
            front.burst.ready.eq((~axi.awvalid | axi.awready) & may_issue),
            offered.eq(front.burst.valid & front.burst.ready),
            lengths.w_data.eq(burst.beats),
            lengths.w_en.eq(offered),
            answers.w_data.eq(Cat(burst.last, burst.index)),
            answers.w_en.eq(offered),
            unanswered_next.eq(unanswered + offered - (axi.bvalid & answers.r_rdy)),
            axi.awid.eq(0),
            axi.awsize.eq(exact_log2(config.bus_bytes)),
            axi.awburst.eq(Burst.INCR),
        ]
        m.d.sync += [
            unanswered.eq(unanswered_next),
            may_issue.eq(unanswered_next != outstanding),
        ]
        with m.If(offered):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(burst.address),
                axi.awlen.eq(burst.beats - 1),
            ]
        with m.Elif(axi.awready):
            m.d.sync += axi.awvalid.eq(0)

        # --- words: each requested one has room in the FIFO --------------------------------------
        pitches = [pitch(config, memory) for memory in SOURCES]
        slots = max(pitches) // config.bus_bytes
        entry = data.StructLayout({"memory": 3, "data": unsigned(8 * max(pitches))})
        m.submodules.words = words = fifo.SyncFIFO(width=entry.size, depth=self.words_ahead)
        room = Signal(range(self.words_ahead + 1), init=self.words_ahead)
        # A register behind the bank selectors: the memories are far from one another.
        arrived, arriving = Signal(entry, reset_less=True), Signal()
        used_up = Signal()
        # Addresses wait here for their memory: so a refusal does not reach back to the commands.
        # Words must come back in order: one memory at a time.
        coming = front.word.payload
        bank = bank_in(m, config, coming)
        request = data.StructLayout({"addr": ADDRESS_BITS, "bank": BANK_BITS})
        ports = (self.activation_read, self.weight_read, self.residual_read)
        waiting = [StreamBuffer(request) for _ in SOURCES]
        taken, beyond, next_word = Signal(len(SOURCES)), Signal(), Signal()
        for i, (memory, port) in enumerate(zip(SOURCES, ports, strict=True)):
            m.submodules[f"waiting_{memory.name.lower()}"] = own = waiting[i]
            others = Cat(other.o.valid for other in waiting if other is not own)
            chosen = coming.memory == memory
            m.d.comb += [
                taken[i].eq(chosen & own.i.ready & ~others.any()),
                own.i.valid.eq(next_word & chosen),
                own.i.payload.addr.eq(coming.addr),
                own.i.payload.bank.eq(bank),
                port.valid.eq(own.o.valid),
                port.addr.eq(own.o.payload.addr),
                port.bank.eq(own.o.payload.bank),
                own.o.ready.eq(port.ready),
            ]
            with m.If(chosen):
                m.d.comb += beyond.eq(coming.addr >= memory_words(config, memory))
            with m.If(port.data_valid):
                m.d.sync += [arrived.memory.eq(memory), arrived.data.eq(port.data)]
        outside, outside_index = Signal(), Signal(INDEX_BITS)  # before the word can come back
        m.d.comb += [
            front.word.ready.eq(taken.any() & (room != 0) & ~stopped),
            next_word.eq(front.word.valid & front.word.ready),
        ]
        m.d.sync += [outside.eq(next_word & beyond), outside_index.eq(coming.index)]
        with m.If(outside | (axi.bvalid & axi.bresp[1])):
            m.d.sync += failed.eq(1)
        m.d.sync += arriving.eq(Cat(port.data_valid for port in ports).any())
        m.d.comb += [words.w_data.eq(arrived), words.w_en.eq(arriving)]
        m.d.sync += room.eq(room - next_word + used_up)

        # --- data -------------------------------------------------------------------------------
        head = data.View(entry, words.r_data)
        beats = data.View(data.ArrayLayout(unsigned(8 * config.bus_bytes), slots), head.data)
        slot = Signal(range(max(slots, 2)))  # never without bits: Verilog has no such signals
        last_slot = Signal()
        sent = Signal(range(config.burst_bytes // config.bus_bytes))  # beats of this burst
        last_beat = Signal()
        send = Signal()
        log2 = word_beats_log2(m, config, head.memory)
        m.d.comb += [
            last_slot.eq(slot == ((1 << log2) - 1)[: len(slot)]),
            last_beat.eq(sent + 1 == lengths.r_data),
            send.eq((~axi.wvalid | axi.wready) & lengths.r_rdy & (words.r_rdy | stop)),
            used_up.eq(send & words.r_rdy & last_slot),
            words.r_en.eq(used_up),
            lengths.r_en.eq(send & last_beat),
        ]
        with m.If(send):
            m.d.sync += [
                axi.wvalid.eq(1),
                axi.wdata.eq(beats[slot]),
                axi.wstrb.eq(~0),
                axi.wlast.eq(last_beat),
                sent.eq(Mux(last_beat, 0, sent + 1)),
                slot.eq(Mux(last_slot, 0, slot + 1)),
            ]
            with m.If(stop):  # ends a started burst: no byte is written, and none is shown
                m.d.sync += [axi.wstrb.eq(0), axi.wdata.eq(0)]
        with m.Elif(axi.wready):
            m.d.sync += axi.wvalid.eq(0)

        # --- acknowledgements -------------------------------------------------------------------
        answer = data.View(acknowledged, answers.r_data)
        m.d.comb += [
            axi.bready.eq(1),
            answers.r_en.eq(axi.bvalid),
            self.quiet.eq(~axi.awvalid & ~lengths.r_rdy & ~axi.wvalid & ~answers.r_rdy),
            self.status.done.eq(axi.bvalid & answer.last & ~axi.bresp[1] & ~stop),
            self.status.busy.eq(front.busy | (room != self.words_ahead) | ~self.quiet),
        ]
        latch_first_error(
            m,
            self.status.error,
            [
                (axi.bvalid & axi.bresp[1] & ~stop, ErrorCode.AXI_WRITE, answer.index),
                (outside, ErrorCode.ONCHIP_RANGE, outside_index),
                (front.error.valid, front.error.code, front.error.index),
            ],
        )
        return m
