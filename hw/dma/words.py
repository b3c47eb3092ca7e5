"""Word loop: the on-chip addresses of a 2-D transfer."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import ADDRESS_BITS, INDEX_BITS, advance

__all__ = ["LoopCommand", "LoopWord", "WordLoop"]

LoopCommand = data.StructLayout(
    {
        "memory": 3,
        "words": 16,
        "runs": 16,
        "address": 16,
        "word_stride": 16,
        "run_stride": 16,
        "index": INDEX_BITS,
    }
)
"""The on-chip half of a LOAD or STORE, named as in `hw.isa`."""

LoopWord = data.StructLayout({"memory": 3, "addr": ADDRESS_BITS, "last": 1, "index": INDEX_BITS})
"""One word of it; `last` tells the last word of the command."""


class WordLoop(wiring.Component):
    """Word addresses of a 2-D transfer, in order.

    ```
    for r in range(runs):
        for w in range(words):
            yield address + r*run_stride + w*word_stride
    ```
    Latency: 1 cycle. Throughput: a word a cycle, and a cycle between commands, so that what
    refuses a word does not reach back to the queue of commands. Flow control: streams.

    Members
    -------
    i: `LoopCommand`. o: `LoopWord`.
    """

    def __init__(self):
        super().__init__(
            {"i": In(stream.Signature(LoopCommand)), "o": Out(stream.Signature(LoopWord))}
        )

    def elaborate(self, platform):
        m = Module()
        command = Signal(LoopCommand)
        words_left = Signal(16)  # of this run, this one included
        run_addr = Signal(ADDRESS_BITS)
        next_run = Signal(ADDRESS_BITS)
        last_of_run = words_left == 1
        word = self.o.payload
        m.d.comb += [
            next_run.eq(advance(run_addr, command.run_stride)),
            word.memory.eq(command.memory),
            word.index.eq(command.index),
            word.last.eq(last_of_run & (command.runs == 1)),
            self.i.ready.eq(~self.o.valid),
        ]
        with m.If(self.o.valid & self.o.ready):
            next_word = advance(word.addr, command.word_stride)
            m.d.sync += word.addr.eq(Mux(last_of_run, next_run, next_word))
            m.d.sync += words_left.eq(Mux(last_of_run, command.words, words_left - 1))
            with m.If(last_of_run):
                m.d.sync += [run_addr.eq(next_run), command.runs.eq(command.runs - 1)]
            with m.If(word.last):
                m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.valid.eq(1),
                command.eq(self.i.payload),
                word.addr.eq(self.i.payload.address),
                run_addr.eq(self.i.payload.address),
                words_left.eq(self.i.payload.words),
            ]
        return m
