"""Accumulator words, read ahead of the groups that use them."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.buffer import StreamBuffer
from hw.cells.block_ram import BlockRam
from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import ADDRESS_BITS, ReadPort, advance
from hw.vector.ahead import AheadFIFO, AheadPort
from hw.vector.command import work_layout
from hw.vector.lane import Stage

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
    Latency: 5 cycles from the command to its first word. Throughput: a word a cycle. Flow
    control: at most `depth` words wait or are under way, so refusals of the accumulator (it
    serves the array first) are hidden while groups take C/V cycles a word.

    Members
    -------
    i, o: commands. acc_read: the accumulator. word: words in order.
    """

    depth = 16

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.layout = word_layout(config.columns)
        super().__init__(
            {
                "i": In(stream.Signature(work_layout(config))),
                "o": Out(stream.Signature(work_layout(config))),
                "acc_read": Out(ReadPort(32 * config.columns)),
                "word": Out(AheadPort(self.layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = AheadFIFO(self.layout, self.depth, lag=Stage.AHEAD_LAG)
        per_word = self.config.groups_per_column_panel

        # --- command ------------------------------------------------------------------------------
        work = Signal(work_layout(self.config), reset_less=True)
        holding, passed = Signal(), Signal()
        rows_left = Signal(12)
        more = Signal()  # it is not 0
        groups_left = Signal(12, reset_less=True)
        last = Signal(reset_less=True)  # the next word is the last one of its row
        one_word = Signal(reset_less=True)  # rows have no more
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
        with m.If(holding & (passed | going) & ~more):
            m.d.sync += holding.eq(0)

        # --- requests -----------------------------------------------------------------------------
        # Addresses wait for the accumulator in registers: what it decides reaches no further.
        m.submodules.waiting = waiting = StreamBuffer(unsigned(ADDRESS_BITS))
        used = Signal(range(self.depth + 1))
        # As it was a cycle ago: then one more may have been offered, and one is now.
        room = Signal()
        port = self.acc_read
        beyond = DelayLine(m, port.out_of_range, "beyond")
        offer = Signal()
        m.d.comb += [
            waiting.i.valid.eq(more & room),
            waiting.i.payload.eq(address),
            offer.eq(waiting.i.valid & waiting.i.ready),
            port.valid.eq(waiting.o.valid),
            port.addr.eq(waiting.o.payload),
            waiting.o.ready.eq(port.ready),
        ]
        m.d.sync += [used.eq(used + offer - words.freed), room.eq(used < self.depth - 1)]
        with m.If(offer):
            with m.If(last):
                m.d.sync += [
                    rows_left.eq(rows_left - 1),
                    more.eq(rows_left != 1),
                    groups_left.eq(work.groups),
                    last.eq(one_word),
                    address.eq(advance(row_address, 1)),
                    row_address.eq(advance(row_address, 1)),
                ]
            with m.Else():
                m.d.sync += [
                    groups_left.eq(groups_left - per_word),
                    last.eq(groups_left <= 2 * per_word),
                    address.eq(advance(address, work.acc_stride)),
                ]
        # All is loaded while there is room for a command: whether one is there, few bits say.
        with m.If(~holding):
            command = self.i.payload
            reads = command.read_acc & (command.error == 0)
            m.d.sync += [
                work.eq(command),
                holding.eq(self.i.valid),
                passed.eq(0),
                rows_left.eq(command.rows),
                more.eq(self.i.valid & reads),
                groups_left.eq(command.groups),
                last.eq(command.groups <= per_word),
                one_word.eq(command.groups <= per_word),
                address.eq(command.acc_address),
                row_address.eq(command.acc_address),
            ]

        # --- words --------------------------------------------------------------------------------
        m.d.comb += [
            words.write.eq(port.data_valid),
            words.i.eq(Cat(port.data, beyond[BlockRam.latency])),
        ]
        wiring.connect(m, words.o, wiring.flipped(self.word))
        return m
