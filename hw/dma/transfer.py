"""The front of loads and stores: DRAM windows, word sizes, and a command's two halves."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.buffer import StreamBuffer
from hw.config import AcceleratorConfig
from hw.dma.burst import BurstGenerator, burst_layout
from hw.dma.words import LoopCommand, LoopWord, WordLoop
from hw.interfaces import INDEX_BITS, UnitError, command_layout, command_stream
from hw.isa import Memory, Opcode, Region
from hw.memory.banks import BANK_BITS, bank_of, memory_banks

__all__ = [
    "TransferFront",
    "bank_in",
    "latch_first_error",
    "pitch",
    "regions_layout",
    "word_beats_log2",
]


def regions_layout(config: AcceleratorConfig) -> data.ArrayLayout:
    """The DRAM windows, by `Region`.

    base: byte address, a multiple of the bus width. size: bytes. writable: stores may go there.
    """
    window = data.StructLayout({"base": unsigned(config.address_bits), "size": 32, "writable": 1})
    return data.ArrayLayout(window, len(Region))


def pitch(config: AcceleratorConfig, memory: Memory) -> int:
    """Bytes that a word of `memory` takes in DRAM."""
    return {
        Memory.ACTIVATION: config.activation_pitch,
        Memory.WEIGHT: config.weight_pitch,
        Memory.RESIDUAL: config.residual_pitch,
        Memory.PARAM0: config.param_pitch,
        Memory.PARAM1: config.param_pitch,
        Memory.MASK: config.mask_pitch,
    }[memory]


def word_beats_log2(m: Module, config: AcceleratorConfig, memory) -> Signal:
    """log2 of the bus beats of a word of `memory` (a `Memory` value)."""
    values = {item: exact_log2(pitch(config, item) // config.bus_bytes) for item in Memory if item}
    result = Signal(range(max(values.values()) + 1), name="word_beats_log2")
    with m.Switch(memory):
        for item, value in values.items():
            with m.Case(item):
                m.d.comb += result.eq(value)
    return result


def bank_in(m: Module, config: AcceleratorConfig, word) -> Signal:
    """The bank of `word` (a `LoopWord`) in its memory."""
    result = Signal(BANK_BITS, name="bank_in_memory")
    with m.Switch(word.memory):
        for item in Memory:
            if item and memory_banks(config, item) > 1:
                with m.Case(item):
                    m.d.comb += result.eq(bank_of(word.addr, memory_banks(config, item)))
    return result


def latch_first_error(m: Module, error, sources) -> None:
    """Keep in `error` (a `UnitError`) the first of `sources`: (happens, code, index), by priority.

    `error.valid` rises three cycles after the error, to keep it off the paths that find it, and
    stays until reset.
    """
    found = []
    for i, (happens, code, position) in enumerate(sources):
        happened = Signal(name=f"happened_{i}")
        index = Signal(INDEX_BITS, name=f"index_{i}", reset_less=True)
        m.d.sync += [happened.eq(happens), index.eq(position)]
        found.append((happened, code, index))
    first = Signal(UnitError, name="first_error")
    for happened, code, index in reversed(found):
        with m.If(happened):
            m.d.comb += [first.valid.eq(1), first.code.eq(code), first.index.eq(index)]
    chosen = Signal(UnitError, name="chosen_error")
    m.d.sync += chosen.eq(first)
    with m.If(chosen.valid & ~error.valid):
        m.d.sync += error.eq(chosen)


class TransferFront(wiring.Component):
    """Takes LOAD or STORE commands; gives their bursts, and separately their on-chip words.

    The two streams run apart: bursts of a command may be taken before words of the commands
    before it, up to `commands_ahead` commands.

    Latency: 5 cycles from a command to its first burst, 3 to its first word. Throughput: a
    burst in two cycles, a word a cycle. Flow control: streams. With
    `i_halt` no command is taken and no burst is offered.

    Parameters
    ----------
    opcode: LOAD or STORE. commands_ahead: see above.

    Members
    -------
    i_command: commands. regions: `regions_layout`. burst: `burst_layout`. word: `LoopWord`.
    started: a command is taken. busy: words are left. error, i_halt: see `BurstGenerator`.
    """

    def __init__(self, config: AcceleratorConfig, opcode: Opcode, *, commands_ahead: int):
        self._config = config
        self._opcode = opcode
        self._commands_ahead = commands_ahead
        super().__init__(
            {
                "i_command": In(command_stream()),
                "regions": In(regions_layout(config)),
                "burst": Out(stream.Signature(burst_layout(config))),
                "word": Out(stream.Signature(LoopWord)),
                "started": Out(1),
                "busy": Out(1),
                "error": Out(UnitError),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command = data.View(command_layout(self._opcode), self.i_command.payload.word)
        index = self.i_command.payload.index

        m.submodules.bursts = bursts = BurstGenerator(self._config)
        window = self.regions[command.region]
        transfer = bursts.i.payload
        m.d.comb += [
            transfer.base.eq(window.base),
            transfer.size.eq(window.size),
            transfer.forbidden.eq(~window.writable if self._opcode == Opcode.STORE else 0),
            transfer.offset.eq(command.offset),
            transfer.words.eq(command.words),
            transfer.runs.eq(command.runs),
            transfer.stride.eq(command.dram_stride),
            transfer.word_beats_log2.eq(word_beats_log2(m, self._config, command.memory)),
            transfer.index.eq(index),
            bursts.i_halt.eq(self.i_halt),
            self.error.eq(bursts.error),
        ]
        wiring.connect(m, bursts.o, wiring.flipped(self.burst))

        m.submodules.waiting = waiting = fifo.SyncFIFO(
            width=LoopCommand.size, depth=self._commands_ahead
        )
        m.submodules.loop = loop = WordLoop()
        half = data.View(LoopCommand, waiting.w_data)
        m.d.comb += [
            half.memory.eq(command.memory),
            half.words.eq(command.words),
            half.runs.eq(command.runs),
            half.address.eq(command.address),
            half.word_stride.eq(command.word_stride),
            half.run_stride.eq(command.run_stride),
            half.index.eq(index),
            loop.i.payload.eq(waiting.r_data),
            loop.i.valid.eq(waiting.r_rdy),
            waiting.r_en.eq(loop.i.ready),
        ]
        m.submodules.buffer = buffer = StreamBuffer(LoopWord)  # whoever takes words decides late
        wiring.connect(m, loop.o, buffer.i)
        wiring.connect(m, buffer.o, wiring.flipped(self.word))

        m.d.comb += [
            self.i_command.ready.eq(bursts.i.ready & waiting.w_rdy),
            bursts.i.valid.eq(self.i_command.valid & waiting.w_rdy),
            self.started.eq(self.i_command.valid & self.i_command.ready),
            waiting.w_en.eq(self.started),
            self.busy.eq(waiting.r_rdy | loop.o.valid | buffer.o.valid),
        ]
        return m
