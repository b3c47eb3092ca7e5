"""Accumulator words, read ahead of the groups that use them."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import ADDRESS_BITS, ReadPort, advance
from hw.vector.ahead import AheadFIFO, AheadPort
from hw.vector.command import Work

__all__ = ["WordReader", "word_layout"]


def word_layout(columns: int) -> data.StructLayout:
    """An accumulator word, or the news that its address is beyond the memory."""
    return data.StructLayout({"data": unsigned(32 * columns), "error": 1})


class WordReader(wiring.Component):
    """Reads each accumulator word of a command once, row by row; passes every command on.

    ```
    for i in range(rows):
        for p in range(ceil(groups * V / C)):
            word = ACC[acc_address + p*acc_stride + i]
    ```
    Latency: 3 cycles from the command to its first word. Throughput: a word a cycle. Flow
    control: at most `depth` words wait or are under way, so refusals of the accumulator (it
    serves the array first) are hidden while groups take C/V cycles a word.

    Members
    -------
    i, o: commands. acc_read: the accumulator. word: words in order. i_halt: read no more.
    """

    depth = 8

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.layout = word_layout(config.columns)
        super().__init__(
            {
                "i": In(stream.Signature(Work)),
                "o": Out(stream.Signature(Work)),
                "acc_read": Out(ReadPort(32 * config.columns)),
                "word": Out(AheadPort(self.layout)),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = AheadFIFO(self.layout, self.depth)
        per_word = self.config.groups_per_column_panel

        # --- command ------------------------------------------------------------------------------
        work = Signal(Work, reset_less=True)
        holding, passed = Signal(), Signal()
        rows_left = Signal(12)
        groups_left = Signal(12, reset_less=True)
        address = Signal(ADDRESS_BITS, reset_less=True)
        row_address = Signal(ADDRESS_BITS, reset_less=True)
        m.d.comb += [
            self.o.valid.eq(holding & ~passed),
            self.o.payload.eq(work),
            self.i.ready.eq(~holding),
        ]
        going = self.o.valid & self.o.ready
        with m.If(going):
            m.d.sync += passed.eq(1)
        with m.If(holding & (passed | going) & (rows_left == 0)):
            m.d.sync += holding.eq(0)

        # --- requests -----------------------------------------------------------------------------
        used = Signal(range(self.depth + 1))
        port = self.acc_read
        accepted = port.valid & port.ready
        error = Signal()
        last = groups_left <= per_word
        m.d.comb += [
            port.valid.eq((rows_left != 0) & (used != self.depth) & ~self.i_halt),
            port.addr.eq(address),
        ]
        m.d.sync += [used.eq(used + accepted - words.freed), error.eq(port.out_of_range)]
        with m.If(accepted):
            with m.If(last):
                m.d.sync += [
                    rows_left.eq(rows_left - 1),
                    groups_left.eq(work.groups),
                    address.eq(advance(row_address, 1)),
                    row_address.eq(advance(row_address, 1)),
                ]
            with m.Else():
                m.d.sync += [
                    groups_left.eq(groups_left - per_word),
                    address.eq(advance(address, work.acc_stride)),
                ]
        with m.If(self.i.valid & self.i.ready):
            command = self.i.payload
            m.d.sync += [
                work.eq(command),
                holding.eq(1),
                passed.eq(0),
                rows_left.eq(0),
                groups_left.eq(command.groups),
                address.eq(command.acc_address),
                row_address.eq(command.acc_address),
            ]
            with m.If(command.read_acc & (command.error == 0)):
                m.d.sync += rows_left.eq(command.rows)

        # --- words --------------------------------------------------------------------------------
        m.d.comb += [
            words.write.eq(port.data_valid),
            words.i.eq(Cat(port.data, error)),
        ]
        wiring.connect(m, words.o, wiring.flipped(self.word))
        return m
