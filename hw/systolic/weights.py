"""Weight loader: fetches the tiles of each GEMM and feeds them to the array's shadow weights."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import (
    ADDRESS_BITS,
    INDEX_BITS,
    ReadPort,
    UnitError,
    command_layout,
    command_stream,
)
from hw.isa import ErrorCode, Opcode
from hw.systolic.prefetch import Prefetch

__all__ = ["WeightLoader"]

WordTag = data.StructLayout({"first": 1, "last": 1, "by_column": 1})
"""Place of a word in its tile."""


class WeightLoader(wiring.Component):
    """Reads tile (n, k) of each command, n outer, k inner, W words each, in the order of use.

    W is R for words by row, C for words by column. Words wait in a small FIFO, also those of the
    next command, so that the first word of a tile can enter the array in the very cycle in which
    the swap frees the shadow weights.

    Latency: 4 cycles from the command to its first word in the array. Throughput: a word a cycle,
    also from tile to tile and from command to command: a tile every W cycles. Flow control: words
    enter while the shadow weights are free; `tile_ready` tells that a whole tile has entered, and
    holds until `swap`.

    Members
    -------
    i_command: GEMM commands whose weights may be read. weight: the weight memory.
    word, word_valid, by_column, first_word: to `SystolicArray`.
    tile_ready, swap: a whole tile waits in the shadow weights; it becomes active.
    busy: a command is being read, or its words wait. error: a weight address beyond the memory.
    i_halt: take no command and read nothing more.
    """

    def __init__(self, config: AcceleratorConfig):
        self.rows = config.rows
        self.columns = config.columns
        self.word_bytes = config.weight_bytes
        word = data.ArrayLayout(unsigned(8), self.word_bytes)
        super().__init__(
            {
                "i_command": In(command_stream()),
                "weight": Out(ReadPort(8 * self.word_bytes)),
                "word": Out(word),
                "word_valid": Out(1),
                "by_column": Out(1),
                "first_word": Out(1),
                "tile_ready": Out(1),
                "swap": In(1),
                "busy": Out(1),
                "error": Out(UnitError),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.prefetch = prefetch = Prefetch(8 * self.word_bytes, WordTag)
        wiring.connect(m, prefetch.port, wiring.flipped(self.weight))
        command = data.View(command_layout(Opcode.GEMM), self.i_command.payload.word)

        # --- read side: the loop nest n, k, word ------------------------------------------------
        longest = max(self.rows, self.columns)
        active = Signal()
        index = Signal(INDEX_BITS)
        by_column = Signal()
        first_word = Signal()
        words_left = Signal(range(longest))  # after this one
        k_tiles, k_left = Signal(10), Signal(10)  # k_left, n_left: tiles left, this one included
        n_left = Signal(10)
        k_stride, n_stride = Signal(16), Signal(16)
        address, tile, panel = (
            Signal(ADDRESS_BITS, name=name) for name in ("address", "tile", "panel")
        )

        last_word = words_left == 0
        last_tile = (k_left == 1) & (n_left == 1)
        m.d.comb += [
            prefetch.i.valid.eq(active & ~self.i_halt),
            prefetch.i.payload.addr.eq(address),
            prefetch.i.payload.tag.first.eq(first_word),
            prefetch.i.payload.tag.last.eq(last_word),
            prefetch.i.payload.tag.by_column.eq(by_column),
        ]
        issue = prefetch.i.valid & prefetch.i.ready
        finish = issue & last_word & last_tile

        def start_tile(start, is_by_column):
            return [
                address.eq(start),
                tile.eq(start),
                first_word.eq(1),
                words_left.eq(Mux(is_by_column, self.columns - 1, self.rows - 1)),
            ]

        with m.If(issue):
            m.d.sync += [address.eq(address + 1), first_word.eq(0)]
            m.d.sync += words_left.eq(words_left - 1)
            with m.If(last_word & (k_left != 1)):
                m.d.sync += start_tile(tile + k_stride, by_column)
                m.d.sync += k_left.eq(k_left - 1)
            with m.Elif(last_word):
                m.d.sync += start_tile(panel + n_stride, by_column)
                m.d.sync += [
                    panel.eq(panel + n_stride),
                    k_left.eq(k_tiles),
                    n_left.eq(n_left - 1),
                ]
        with m.If(finish):
            m.d.sync += active.eq(0)
        # The next command may follow without a gap.
        m.d.comb += self.i_command.ready.eq((~active | finish) & ~self.i_halt)
        with m.If(self.i_command.valid & self.i_command.ready):
            m.d.sync += start_tile(command.w_address, command.w_by_column)
            m.d.sync += [
                active.eq(1),
                index.eq(self.i_command.payload.index),
                by_column.eq(command.w_by_column),
                panel.eq(command.w_address),
                k_tiles.eq(command.k_tiles),
                k_left.eq(command.k_tiles),
                n_left.eq(command.n_tiles),
                k_stride.eq(command.w_k_stride),
                n_stride.eq(command.w_n_stride),
            ]
        m.d.comb += [
            self.error.valid.eq(prefetch.out_of_range),
            self.error.code.eq(ErrorCode.ONCHIP_RANGE),
            self.error.index.eq(index),
        ]

        # --- array side -------------------------------------------------------------------------
        head = prefetch.o.payload
        m.d.comb += [
            prefetch.o.ready.eq(~self.tile_ready | self.swap),
            self.word_valid.eq(prefetch.o.valid & prefetch.o.ready),
            self.word.eq(head.data),
            self.by_column.eq(head.tag.by_column),
            self.first_word.eq(head.tag.first),
            self.busy.eq(active | prefetch.pending),
        ]
        # A tile has at least two words, so the last one never enters with the swap.
        with m.If(self.word_valid & head.tag.last):
            m.d.sync += self.tile_ready.eq(1)
        with m.Elif(self.swap):
            m.d.sync += self.tile_ready.eq(0)
        return m
