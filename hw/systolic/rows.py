"""Row streamer: the loop nest of GEMM as a stream of tagged activation rows."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import ReadPort, UnitError, advance, command_stream
from hw.isa import ErrorCode, Memory
from hw.memory.banks import memory_banks
from hw.systolic.prefetch import RowPrefetch
from hw.systolic.tags import request_tag
from hw.systolic.tiles import TileLoop

__all__ = ["RowStreamer"]


class RowStreamer(wiring.Component):
    """Reads activation rows in the order n, k, i and gives each its tag.

    ```
    row (n, k, i): ACTIVATION[a_address + k*a_stride + i] for ACC[acc_address + n*acc_stride + i]
    ```
    A row of a SPARSE_GEMM has the words of two panels, `2*k` and `2*k + 1`, read together. A wide
    GEMM has two rows for each word of the accumulator: of high bytes, whose tag neither reads nor
    writes it, and of low bytes. After `period` words of it the causal limit begins anew.

    Latency: 6 cycles and the memory's from a command to its first row. Throughput: a row a cycle,
    also from tile to tile and from command to command, where tiles have two rows or more; the two
    words of a sparse row may share a bank, as requests wait on their own. Flow control: `o` is a
    FIFO, so the memory may hesitate.

    Ranges: an accumulator word beyond the memory, and row slots beyond `row_slots` in a command
    that uses them, are reported as `ONCHIP_RANGE`; the rows concerned carry `write = 0`.

    A later row skip on causal diagonals would start at the first row with a valid key of the
    output tile: it changes only the tiles that `TileLoop` yields.

    Members
    -------
    i_command: GEMM commands whose operands may be used. activation: the activation memory, with
        `sparse` two ports. started: a command is taken.
    o: `data` (R bytes for each word) and `tag` (`request_tag`).
    i_hold: take no command yet. active: a command is held or being read. pending: rows are in
        the FIFO.
    error: see `UnitError`. i_halt: take no command any more.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.tag = request_tag(config)
        self.panels = 2 if config.sparse else 1
        width = 8 * config.rows
        row = data.ArrayLayout(unsigned(width), self.panels)
        super().__init__(
            {
                "i_command": In(command_stream()),
                "activation": Out(ReadPort(width)).array(self.panels),
                "o": Out(stream.Signature(data.StructLayout({"data": row, "tag": self.tag}))),
                "started": Out(1),
                "active": Out(1),
                "pending": Out(1),
                "error": Out(UnitError),
                "i_hold": In(1),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        config = self.config
        m = Module()
        m.submodules.prefetch = prefetch = RowPrefetch(
            8 * config.rows,
            self.tag,
            panels=self.panels,
            memory_words=config.activation_words,
            banks=memory_banks(config, Memory.ACTIVATION),
        )
        for port, memory in zip(prefetch.port, self.activation, strict=True):
            wiring.connect(m, port, wiring.flipped(memory))
        m.submodules.tiles = tiles = TileLoop(config)
        wiring.connect(m, wiring.flipped(self.i_command), tiles.i_command)
        head = prefetch.o.payload
        m.d.comb += [
            tiles.i_hold.eq(self.i_hold),
            tiles.i_halt.eq(self.i_halt),
            self.started.eq(tiles.started),
            self.pending.eq(prefetch.pending),
            self.o.valid.eq(prefetch.o.valid),
            self.o.payload.data.eq(head.data),
            self.o.payload.tag.eq(head.tag),
            prefetch.o.ready.eq(self.o.ready),
        ]

        # --- the row that is asked for ----------------------------------------------------------
        tile = Signal(tiles.layout)
        busy = Signal()
        reload = Signal(init=1)  # the next row is the first of another tile, or of none
        rows_left = Signal(tile.rows.shape())  # this one included
        first_row, last_row = Signal(), Signal()
        high = Signal()  # of a wide tile: rows of high and of low bytes take turns
        adds = tile.accumulate | tile.rescale if config.decoder else tile.accumulate
        find_max = tile.row_max & tile.last_k
        acc_fits = tile.acc_address < config.accumulator_words
        inside = (tile.limit >= 0) & (tile.limit < config.columns)
        request = prefetch.i.payload
        tag = request.tag
        m.d.comb += [
            prefetch.i.valid.eq(busy),
            request.both.eq(tile.is_sparse),
            request.addr[0].eq(tile.a_address),
            tag.write.eq(acc_fits & tile.slots_fit & ~high),
            tag.read.eq((adds | ~tile.first_k) & ~high),
            tag.rescale.eq(tile.rescale & tile.first_k),
            tag.row_max.eq(find_max),
            tag.first_panel.eq(tile.first_n),
            tag.last.eq(last_row & tile.last),
            tag.address.eq(tile.acc_address),
            tag.slot.eq(tile.slot),
            tag.valid_keys.eq(
                Mux(inside, tile.limit.as_unsigned(), Mux(tile.limit < 0, 0, config.columns))
            ),
            tag.is_unsigned.eq(tile.a_unsigned),
            tag.first.eq(first_row),
            tag.last_of_tile.eq(last_row),
            tag.masked.eq(find_max & tile.mask),
            tag.is_sparse.eq(tile.is_sparse),
        ]
        if config.sparse:
            m.d.comb += request.addr[1].eq(tile.a_address_1)
        if config.scales:
            m.d.comb += tag.is_scaled.eq(tile.is_scaled)
        if config.prune:
            m.d.comb += tag.rounds.eq(tile.is_low)
        if config.sleep:
            m.d.comb += tag.is_int4.eq(tile.is_int4)
        if config.decoder:
            m.d.comb += [
                tag.by_byte.eq(~tile.accumulate),
                tag.is_high.eq(high),
                tag.is_low.eq(tile.wide & ~high),
            ]
        issue = prefetch.i.valid & prefetch.i.ready
        m.d.comb += [
            self.active.eq(tiles.active | tiles.o.valid | busy),
            self.error.code.eq(ErrorCode.ONCHIP_RANGE),
        ]
        m.d.sync += [
            self.error.valid.eq(
                prefetch.out_of_range | (issue & ~acc_fits) | (busy & ~tile.slots_fit)
            ),
            self.error.index.eq(tile.index),
        ]

        # --- the next one -----------------------------------------------------------------------
        move = issue | ~busy
        m.d.comb += tiles.o.ready.eq(move & reload)
        with m.If(move):
            with m.If(reload):
                m.d.sync += [
                    tile.eq(tiles.o.payload),
                    busy.eq(tiles.o.valid),
                    rows_left.eq(tiles.o.payload.rows),
                    first_row.eq(1),
                    last_row.eq(tiles.o.payload.one_row),
                    reload.eq(~tiles.o.valid | tiles.o.payload.one_row),
                ]
            with m.Else():
                m.d.sync += [
                    tile.a_address.eq(advance(tile.a_address, 1)),
                    tile.a_address_1.eq(advance(tile.a_address_1, 1)),
                    rows_left.eq(rows_left - 1),
                    first_row.eq(0),
                    last_row.eq(rows_left == 2),
                    reload.eq(rows_left == 2),
                ]
                with m.If(~high):
                    m.d.sync += [
                        tile.acc_address.eq(advance(tile.acc_address, 1)),
                        tile.slot.eq(tile.slot + 1),
                        tile.limit.eq(tile.limit + tile.causal),
                    ]
        if config.decoder:
            self._pairs_and_periods(m, tile, tiles.o.payload, high, move, reload)
        return m

    def _pairs_and_periods(self, m: Module, tile, given, high: Signal, move, reload) -> None:
        """What follows a row of high bytes, and a row with which the causal limit begins anew."""
        left = Signal(7)  # rows of the period, this one included
        first_limit = Signal.like(tile.limit)
        with m.If(move & reload):
            m.d.sync += [
                high.eq(given.wide),
                left.eq(given.period),
                first_limit.eq(given.limit),
            ]
        with m.Elif(move):
            m.d.sync += high.eq(tile.wide & ~high)
            with m.If(~high):
                m.d.sync += left.eq(left - 1)
                with m.If(tile.period.any() & (left == 1)):
                    m.d.sync += [left.eq(tile.period), tile.limit.eq(first_limit)]
