"""Weight unpacker: words of any weight format to rows of INT8 weights and their indices."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.columns import GROUP, copies, register
from hw.config import AcceleratorConfig
from hw.fifo import CountedFifo
from hw.sparse.select import INDEX_BITS

__all__ = ["WeightUnpacker", "WordKind", "group_scales", "packed_tag", "weight_entry"]

NIBBLE = 4


class WordKind(enum.Enum, shape=2):
    """What a word of weight memory holds."""

    VALUES = 0
    INDICES = 1
    MULTIPLIERS = 2
    """Or scales, if the tile is `scaled`."""
    OFFSETS = 3


def packed_tag(config: AcceleratorConfig) -> data.StructLayout:
    """What comes with a word from weight memory.

    first, last: word of values at either end of its tile. by_column, int4, sparse, multiplied,
    scaled: format of the tile; `multiplied`: there are multipliers, `scaled`: scales and offsets.
    """
    members: dict = {"first": 1, "last": 1, "by_column": 1}
    if config.sparse or config.int4:
        members |= {"kind": WordKind, "int4": 1, "sparse": 1, "multiplied": 1}
    if config.scales:
        members |= {"scaled": 1}
    return data.StructLayout(members)


def weight_entry(config: AcceleratorConfig) -> data.StructLayout:
    """What enters the array in a cycle.

    word: a row (C) or column (R) of the tile. With INT4 support: `word_1` is the next row if
    `two_rows`, else the same. With 2:4 support: `index` of each row and column.
    """
    members: dict = {
        "word": data.ArrayLayout(unsigned(8), config.weight_bytes),
        "first": 1,
        "last": 1,
        "by_column": 1,
    }
    if config.int4:
        members |= {"word_1": data.ArrayLayout(unsigned(8), config.columns), "two_rows": 1}
    if config.sparse:
        row = data.ArrayLayout(unsigned(INDEX_BITS), config.columns)
        members["index"] = data.ArrayLayout(row, 2)
    return data.StructLayout(members)


def group_scales(config: AcceleratorConfig) -> data.StructLayout:
    """What the sums of a tile of a SCALED_GEMM are multiplied by, for each column."""
    scale = data.ArrayLayout(unsigned(8), config.columns)
    return data.StructLayout(
        {"scale": scale, "offset": data.ArrayLayout(signed(8), config.columns)}
    )


class WeightUnpacker(wiring.Component):
    """`hw/sparse/packing.py` says what the words mean.

    Words of indices and of multipliers are kept for the words of values behind them. Dense INT8
    words pass with indices of 0, which give each row its own input. Scales and offsets are for the
    sums of a tile, far behind: they go out by themselves, once for each tile.

    Latency: `latency` cycles. Throughput: a word a cycle. Flow control: streams; `o` is a FIFO, so
    whether the array takes a word, which is decided late in a cycle, reaches no further. So is
    `o_scales`; both have room, or no word is taken.

    Parameters
    ----------
    config: needs `sparse` or `int4`.

    Members
    -------
    i: `data`, `tag` (`packed_tag`). o: `weight_entry`. o_scales: `group_scales` of each tile that
    is `scaled`, no later than its first entry (with `scales`).
    """

    latency = 3
    depth = 8
    scales_depth = 16

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.tag = packed_tag(config)
        word = {"data": unsigned(8 * config.weight_bytes), "tag": self.tag}
        members = {
            "i": In(stream.Signature(data.StructLayout(word))),
            "o": Out(stream.Signature(weight_entry(config))),
        }
        if config.scales:
            members["o_scales"] = Out(stream.Signature(group_scales(config)))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layout = weight_entry(c)
        m.submodules.entries = entries = CountedFifo(layout.size, self.depth)
        room = Signal()
        # As it was a cycle ago: then three may have come, and one does now.
        scales = CountedFifo(group_scales(c).size, self.scales_depth) if c.scales else None
        has_room = entries.level < self.depth - 3
        if scales is not None:
            m.submodules.scales = scales
            has_room &= scales.level < self.scales_depth - 3
        m.d.sync += room.eq(has_room)
        take = self.i.valid & self.i.ready
        kind = self.i.payload.tag.kind
        m.d.comb += [
            self.i.ready.eq(room),
            self.o.valid.eq(entries.r_rdy),
            self.o.payload.eq(entries.r_data),
            entries.r_en.eq(self.o.ready),
        ]

        # Stage 1: a register in front, so that products have a cycle of their own, and what is to
        # be done with the word, for each group of columns.
        given = Signal(self.i.payload.shape(), name="given", reset_less=True)
        values = Signal()
        m.d.sync += [given.eq(self.i.payload), values.eq(take & (kind == WordKind.VALUES))]
        tag = given.tag
        byte = [given.data[8 * i : 8 * i + 8] for i in range(c.weight_bytes)]
        kinds, flags = [], ["int4"]
        if c.int4:
            kinds, flags = [WordKind.MULTIPLIERS], [*flags, "multiplied"]
        if c.scales:
            kinds = [*kinds, WordKind.OFFSETS]
        if c.sparse:
            kinds, flags = [*kinds, WordKind.INDICES, WordKind.VALUES], [*flags, "sparse"]
        decisions = {flag: self.i.payload.tag[flag] for flag in flags}
        decisions |= {word.name: take & (kind == word) for word in kinds}
        near = [copies(m, decisions, str(group)) for group in range((c.columns - 1) // GROUP + 1)]

        # Stage 2: the entry, and a register behind it.
        entry = Signal(layout)
        m.d.comb += [
            entry.first.eq(tag.first),
            entry.last.eq(tag.last),
            entry.by_column.eq(tag.by_column),
            *(entry.word[i].eq(byte[i]) for i in range(c.weight_bytes)),
        ]
        if c.int4:
            m.d.comb += entry.two_rows.eq(tag.int4)
            m.d.comb += [entry.word_1[i].eq(byte[i]) for i in range(c.columns)]
        for i in range(c.columns):
            if c.int4:
                self._multiply(m, i, near[i // GROUP], entry, byte[i])
            if c.sparse:
                self._index(m, i, near[i // GROUP], entry, byte[i])
        if scales is not None:
            self._scales(m, scales, byte, near, values & tag.first & tag.scaled)
        made = register(m, entry, "made")
        m.d.sync += entries.w_en.eq(values)
        m.d.comb += entries.w_data.eq(made)
        return m

    def _multiply(self, m: Module, i: int, near, entry, byte) -> None:
        """INT4 values of column i times their multiplier, two rows a word."""
        multiplier = Signal(NIBBLE + 1, name=f"multiplier_{i}", reset_less=True)
        with m.If(near["MULTIPLIERS"]):
            m.d.sync += multiplier.eq(byte[:NIBBLE] + 1)
        factor = Mux(near["multiplied"], multiplier, 1)
        for row, nibble in ((entry.word, byte[:NIBBLE]), (entry.word_1, byte[NIBBLE:])):
            # Two small sums and one of them: half of what a row of additions takes, and a
            # multiplier block would be wasted on 4 x 5 bits.
            terms = [Mux(bit, factor, 0) for bit in nibble]
            low, high = terms[0] + (terms[1] << 1), terms[2] - (terms[3] << 1)
            product = Signal(signed(8), name="product")
            m.d.comb += product.eq(low + (high << 2))
            with m.If(near["int4"]):
                m.d.comb += row[i].eq(product)

    def _scales(self, m: Module, fifo: CountedFifo, byte, near, first) -> None:
        """Scales and offsets, which are offered with the first word of values of each tile."""
        held = Signal(group_scales(self.config), name="group", reset_less=True)
        for i in range(self.config.columns):
            with m.If(near[i // GROUP]["MULTIPLIERS"]):
                m.d.sync += held.scale[i].eq(byte[i])
            with m.If(near[i // GROUP]["OFFSETS"]):
                m.d.sync += held.offset[i].eq(byte[i])
        m.d.comb += [
            fifo.w_en.eq(first),
            fifo.w_data.eq(held),
            self.o_scales.valid.eq(fifo.r_rdy),
            self.o_scales.payload.eq(fifo.r_data),
            fifo.r_en.eq(self.o_scales.ready),
        ]

    def _index(self, m: Module, i: int, near, entry, byte) -> None:
        """Indices of the rows of a word, of column i; those of the next rows move up."""
        waiting = Signal(8, name=f"indices_{i}", reset_less=True)
        with m.If(near["INDICES"]):
            m.d.sync += waiting.eq(byte)
        with m.Elif(near["VALUES"]):
            m.d.sync += waiting.eq(waiting >> Mux(near["int4"], 2 * INDEX_BITS, INDEX_BITS))
        low, high = waiting[:INDEX_BITS], waiting[INDEX_BITS : 2 * INDEX_BITS]
        m.d.comb += [
            entry.index[0][i].eq(Mux(near["sparse"], low, 0)),
            entry.index[1][i].eq(Mux(near["sparse"], Mux(near["int4"], high, low), 0)),
        ]
