"""Weight loader: fetches the tiles of each GEMM and feeds them to the array's shadow weights."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.cells.clock_gate import gated
from hw.config import AcceleratorConfig
from hw.interfaces import (
    ADDRESS_BITS,
    INDEX_BITS,
    ReadPort,
    UnitError,
    advance,
    command_layout,
    command_stream,
)
from hw.isa import ErrorCode, Memory, Opcode
from hw.memory.banks import memory_banks
from hw.sparse.packing import TileFormat
from hw.sparse.unpack import WeightUnpacker, WordKind, group_scales, packed_tag, weight_entry
from hw.systolic.prefetch import Prefetch

__all__ = ["WeightLoader"]


class WeightLoader(wiring.Component):
    """Reads tile (n, k) of each command, n outer, k inner, W words each, in the order of use.

    W is the `words` of a tile (`hw/sparse/packing.py`): R for words by row, C for words by column.
    Words wait in a small FIFO, also those of the next command, so that the first word of a tile
    can enter the array in the very cycle in which the swap frees the shadow weights. Between the
    FIFO and the array is the unpacker, if the configuration has more than dense INT8 weights.

    Latency: 4 cycles and the memory's from the command to its first word in the array, and the
    unpacker's. Throughput: a word a cycle, also from tile to tile and from command to command: a
    tile every W cycles (and one more for multipliers, two for scales and offsets). Flow control:
    words enter while the shadow weights are free; `tile_ready` tells that a whole tile has entered,
    and holds until a swap. Both are known a cycle ahead, so that what depends on them begins with
    registers.

    Members
    -------
    i_command: commands whose weights may be read. weight: the weight memory.
    o, o_valid: to `SystolicArray`. o_scales: scales and offsets of its tiles, if there are some,
    in front of their last word. tile_ready: a whole tile waits in the shadow weights.
    will_be_ready: it does in the next cycle. will_swap: it becomes active in the next cycle.
    busy: a command is being read, or its words wait. error: a weight address beyond the memory.
    i_halt: take no command any more.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.tag = packed_tag(config)
        self.entry = weight_entry(config)
        members = {
            "i_command": In(command_stream()),
            "weight": Out(ReadPort(8 * config.weight_bytes)),
            "o": Out(self.entry),
            "o_valid": Out(1),
            "tile_ready": Out(1),
            "will_be_ready": Out(1),
            "will_swap": In(1),
            "busy": Out(1),
            "error": Out(UnitError),
            "i_halt": In(1),
        }
        if config.scales:
            members["o_scales"] = Out(stream.Signature(group_scales(config)))
        super().__init__(members)

    def _tile_words(self, by_column, int4, sparse):
        """Words of a tile, a constant for each format that the configuration has."""
        c = self.config

        def words(**form: bool) -> int:
            return TileFormat(c.rows, c.columns, **form).words

        result = Mux(by_column, words(by_column=True), words())
        if c.int4:
            result = Mux(int4, words(int4=True), result)
        if c.sparse:
            with_index = words(sparse=True)
            if c.int4:
                with_index = Mux(int4, words(sparse=True, int4=True), with_index)
            result = Mux(sparse, with_index, result)
        return result

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.prefetch = prefetch = Prefetch(
            8 * c.weight_bytes,
            self.tag,
            memory_words=c.weight_words,
            banks=memory_banks(c, Memory.WEIGHT),
        )
        wiring.connect(m, prefetch.port, wiring.flipped(self.weight))
        command = data.View(command_layout(Opcode.GEMM), self.i_command.payload.word)
        packed = c.sparse or c.int4

        # --- read side: the loop nest n, k, word ------------------------------------------------
        longest = max(c.rows, c.columns, TileFormat(c.rows, c.columns, sparse=True).words) + 2
        active = Signal()
        index = Signal(INDEX_BITS)
        by_column, int4, sparse, scaled = (
            Signal(name=name) for name in ("by_column", "int4", "sparse", "scaled")
        )
        group = Signal(4)  # tiles that share multipliers, or scales and offsets
        group_heads = Signal(2)  # words of these
        first_values = Signal()
        kind = Signal(WordKind)
        run_left = Signal(2)  # words of values behind this one up to the next indices
        heads = Signal(2)  # words of them in front of this tile
        group_place = Signal(4)  # of this tile in its group
        tile_words = Signal(range(longest))
        words_left = Signal(range(longest))  # after this one
        k_tiles, k_left = Signal(10), Signal(10)  # k_left, n_left: tiles left, this one included
        n_left = Signal(10)
        k_stride, n_stride = Signal(16), Signal(16)
        address, tile, panel = (
            Signal(ADDRESS_BITS, name=name) for name in ("address", "tile", "panel")
        )

        # Registers, as they decide what everything else does.
        last_word, last_k, last_n, one_k = (
            Signal(name=name) for name in ("last_word", "last_k", "last_n", "one_k")
        )
        tag = prefetch.i.payload.tag
        m.d.comb += [
            prefetch.i.valid.eq(active),
            prefetch.i.payload.addr.eq(address),
            tag.first.eq(first_values),
            tag.last.eq(last_word),
            tag.by_column.eq(by_column),
        ]
        if packed:
            m.d.comb += [
                tag.kind.eq(kind),
                tag.int4.eq(int4),
                tag.sparse.eq(sparse),
                tag.multiplied.eq((group != 0) & ~scaled),
            ]
        if c.scales:
            m.d.comb += tag.scaled.eq(scaled)
        issue = prefetch.i.valid & prefetch.i.ready
        finish = issue & last_word & last_k & last_n
        next_place = Mux(group_place + 1 == group, 0, group_place + 1)

        def start_tile(start, words, is_sparse, in_front, place):
            """in_front: words of multipliers, or of scales and offsets, that it begins with."""
            statements = [address.eq(start), tile.eq(start), first_values.eq(1)]
            if not packed:
                return [*statements, words_left.eq(words - 1), last_word.eq(words == 1)]
            values = Mux(is_sparse, WordKind.INDICES, WordKind.VALUES)
            return [
                *statements,
                words_left.eq(words - 1 + in_front),
                last_word.eq((words == 1) & (in_front == 0)),
                kind.eq(Mux(in_front != 0, WordKind.MULTIPLIERS, values)),
                heads.eq(in_front),
                group_place.eq(place),
            ]

        with m.If(issue):
            m.d.sync += [
                address.eq(advance(address, 1)),
                words_left.eq(words_left - 1),
                last_word.eq(words_left == 1),
            ]
            with m.If(kind == WordKind.VALUES):
                m.d.sync += first_values.eq(0)
            if packed:
                with m.Switch(kind):
                    with m.Case(WordKind.MULTIPLIERS):
                        values = Mux(sparse, WordKind.INDICES, WordKind.VALUES)
                        m.d.sync += kind.eq(Mux(scaled, WordKind.OFFSETS, values))
                    with m.Case(WordKind.OFFSETS):
                        m.d.sync += kind.eq(WordKind.VALUES)
                    with m.Case(WordKind.INDICES):
                        m.d.sync += [kind.eq(WordKind.VALUES), run_left.eq(Mux(int4, 1, 3))]
                    with m.Default():
                        m.d.sync += run_left.eq(run_left - 1)
                        with m.If(sparse & (run_left == 0)):
                            m.d.sync += kind.eq(WordKind.INDICES)
            with m.If(last_word & ~last_k):
                following = advance(tile, k_stride + heads)
                in_front = Mux(next_place == 0, group_heads, 0)
                m.d.sync += start_tile(following, tile_words, sparse, in_front, next_place)
                m.d.sync += [k_left.eq(k_left - 1), last_k.eq(k_left == 2)]
            with m.Elif(last_word):
                m.d.sync += start_tile(advance(panel, n_stride), tile_words, sparse, group_heads, 0)
                m.d.sync += [
                    panel.eq(advance(panel, n_stride)),
                    k_left.eq(k_tiles),
                    last_k.eq(one_k),
                    n_left.eq(n_left - 1),
                    last_n.eq(n_left == 2),
                ]
        with m.If(finish):
            m.d.sync += active.eq(0)
        # The next command may follow without a gap.
        m.d.comb += self.i_command.ready.eq((~active | finish) & ~self.i_halt)
        with m.If(self.i_command.valid & self.i_command.ready):
            is_sparse = command.opcode == Opcode.SPARSE_GEMM
            words = self._tile_words(command.w_by_column, command.w_int4, is_sparse)
            is_scaled = (command.opcode == Opcode.SCALED_GEMM) if c.scales else Const(0, 1)
            has_heads = command.w_group != 0
            in_front = Cat(has_heads & ~is_scaled, has_heads & is_scaled)
            m.d.sync += start_tile(command.w_address, words, is_sparse, in_front, 0)
            m.d.sync += [
                active.eq(1),
                index.eq(self.i_command.payload.index),
                by_column.eq(command.w_by_column),
                tile_words.eq(words),
                panel.eq(command.w_address),
                k_tiles.eq(command.k_tiles),
                k_left.eq(command.k_tiles),
                last_k.eq(command.k_tiles == 1),
                one_k.eq(command.k_tiles == 1),
                n_left.eq(command.n_tiles),
                last_n.eq(command.n_tiles == 1),
                k_stride.eq(command.w_k_stride),
                n_stride.eq(command.w_n_stride),
            ]
            if packed:
                m.d.sync += [
                    int4.eq(command.w_int4),
                    sparse.eq(is_sparse),
                    scaled.eq(is_scaled),
                    group.eq(command.w_group),
                    group_heads.eq(in_front),
                ]
        m.d.comb += [
            self.error.valid.eq(prefetch.out_of_range),
            self.error.code.eq(ErrorCode.ONCHIP_RANGE),
            self.error.index.eq(index),
        ]

        # --- array side -------------------------------------------------------------------------
        source = stream.Signature(self.entry).create()
        if packed:
            unpack = WeightUnpacker(c)
            # Each word that comes or goes sets it in motion; `room` is the last to follow. A reset
            # comes while all is halted, and must not be missed.
            moves = prefetch.o.valid & prefetch.o.ready | source.valid & source.ready | self.i_halt
            if c.scales:
                moves |= self.o_scales.ready
            m.submodules.unpack = gated(
                m, platform, unpack, "unpacker", busy=moves, linger=unpack.latency + 3
            )
            wiring.connect(m, prefetch.o, unpack.i)
            wiring.connect(m, unpack.o, wiring.flipped(source))
            if c.scales:
                wiring.connect(m, unpack.o_scales, wiring.flipped(self.o_scales))
        else:
            head = prefetch.o.payload
            m.d.comb += [
                source.payload.word.eq(head.data),
                source.payload.first.eq(head.tag.first),
                source.payload.last.eq(head.tag.last),
                source.payload.by_column.eq(head.tag.by_column),
                source.valid.eq(prefetch.o.valid),
                prefetch.o.ready.eq(source.ready),
            ]
        swap = Signal()
        m.d.sync += [swap.eq(self.will_swap), self.tile_ready.eq(self.will_be_ready)]
        m.d.comb += [
            source.ready.eq(~self.tile_ready | swap),
            self.o_valid.eq(source.valid & source.ready),
            self.o.eq(source.payload),
            # The last word enters with the swap only if it is the only one of the next tile.
            self.will_be_ready.eq((self.o_valid & source.payload.last) | (self.tile_ready & ~swap)),
            self.busy.eq(active | prefetch.pending | source.valid),
        ]
        return m
