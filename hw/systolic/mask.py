"""Key mask reader: one word of the mask memory for each output tile of a masked GEMM."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import (
    ADDRESS_BITS,
    INDEX_BITS,
    CommandEntry,
    ReadPort,
    UnitError,
    advance,
    command_layout,
)
from hw.isa import ErrorCode, Memory, Opcode
from hw.memory.banks import memory_banks
from hw.systolic.prefetch import Prefetch

__all__ = ["MaskReader"]


class MaskReader(wiring.Component):
    """Reads MASK[mask_address + n] for n in range(n_tiles) of each command that uses the mask.

    Latency: 4 cycles and the memory's from the command to its first word, less than the row
    streamer needs to its first row, so that a masked command starts as fast as any. Throughput: a
    word a cycle. Flow control: `o` is a FIFO; while `active`, no further command may start.

    Members
    -------
    i_command, i_start: a command starts in this cycle. mask: the mask memory. o: words of C bits.
    error: a mask address beyond the memory.
    """

    def __init__(self, config: AcceleratorConfig):
        self.columns = config.columns
        self.words = config.mask_words
        self.banks = memory_banks(config, Memory.MASK)
        super().__init__(
            {
                "i_command": In(CommandEntry),
                "i_start": In(1),
                "mask": Out(ReadPort(self.columns)),
                "o": Out(
                    stream.Signature(
                        data.StructLayout({"data": unsigned(self.columns), "tag": unsigned(1)})
                    )
                ),
                "active": Out(1),
                "error": Out(UnitError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.prefetch = prefetch = Prefetch(
            self.columns,
            unsigned(1),
            memory_words=self.words,
            banks=self.banks,
        )
        wiring.connect(m, prefetch.port, wiring.flipped(self.mask))
        wiring.connect(m, prefetch.o, wiring.flipped(self.o))
        command = data.View(command_layout(Opcode.GEMM), self.i_command.word)
        address = Signal(ADDRESS_BITS)
        words_left = Signal(10)
        index = Signal(INDEX_BITS)
        m.d.comb += [
            prefetch.i.valid.eq(self.active),
            prefetch.i.payload.addr.eq(address),
            self.error.code.eq(ErrorCode.ONCHIP_RANGE),
        ]
        m.d.sync += [self.error.valid.eq(prefetch.out_of_range), self.error.index.eq(index)]
        # All is loaded while nothing is read (`i_start` comes only then): one bit says whether it
        # was a command with masks.
        with m.If(~self.active):
            m.d.sync += [
                self.active.eq(self.i_start & command.row_max & command.mask),
                address.eq(command.mask_address),
                words_left.eq(command.n_tiles),
                index.eq(self.i_command.index),
            ]
        with m.Elif(prefetch.i.ready):
            m.d.sync += [
                address.eq(advance(address, 1)),
                words_left.eq(words_left - 1),
                self.active.eq(words_left != 1),
            ]
        return m
