"""Row streamer: the loop nest of GEMM as a stream of tagged activation rows."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

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
from hw.isa import ErrorCode, Opcode
from hw.systolic.prefetch import RowPrefetch
from hw.systolic.tags import request_tag

__all__ = ["RowStreamer"]

LIMIT_BITS = 20
"""Signed: an 18-bit limit, plus at most 4,095 rows, minus at most 1,022 * 128 columns."""


class RowStreamer(wiring.Component):
    """Reads activation rows in the order n, k, i and gives each its tag.

    ```
    row (n, k, i): ACTIVATION[a_address + k*a_stride + i] for ACC[acc_address + n*acc_stride + i]
    ```
    A row of a SPARSE_GEMM has the words of two panels, `2*k` and `2*k + 1`, read together.

    Latency: 3 cycles from a command to its first row. Throughput: a row a cycle, also from tile
    to tile and from command to command; a sparse row takes two where its words share a bank, so
    never with an odd `a_stride`. Flow control: `o` is a FIFO of four rows, so the memory may
    hesitate.

    Ranges: an accumulator word beyond the memory, and row slots beyond `row_slots` in a command
    that uses them, are reported as `ONCHIP_RANGE`; the rows concerned carry `write = 0`.

    A later row skip on causal diagonals would start `row` at the first row with a valid key of
    the output tile: it changes only what `start_tile` loads.

    Members
    -------
    i_command: GEMM commands whose operands may be used. activation: the activation memory, with
        `sparse` two ports. started: a command is taken.
    o: `data` (R bytes for each word) and `tag` (`request_tag`).
    i_hold: take no command yet. active: a command is being read. pending: rows are in the FIFO.
    error: see `UnitError`. i_halt: take no command and read nothing more.
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
            8 * config.rows, self.tag, panels=self.panels
        )
        for port, memory in zip(prefetch.port, self.activation, strict=True):
            wiring.connect(m, port, wiring.flipped(memory))
        head = prefetch.o.payload
        m.d.comb += [
            self.pending.eq(prefetch.pending),
            self.o.valid.eq(prefetch.o.valid),
            self.o.payload.data.eq(head.data),
            self.o.payload.tag.eq(head.tag),
            prefetch.o.ready.eq(self.o.ready),
        ]
        layout = command_layout(Opcode.GEMM)
        incoming = data.View(layout, self.i_command.payload.word)

        # --- state ------------------------------------------------------------------------------
        command = Signal(layout)  # fields that nothing reads are removed by synthesis
        index = Signal(INDEX_BITS)
        slots_fit = Signal()
        first_row, first_k, first_n = Signal(), Signal(), Signal()
        rows_left, k_left, n_left = Signal(12), Signal(10), Signal(10)  # this one included
        a_row, a_tile = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        is_sparse = Signal()
        a_row_1, a_tile_1 = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)  # the second words
        a_start_1 = Signal(ADDRESS_BITS)
        a_step = Signal(17)  # from tile to tile
        acc_row, acc_panel = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        slot = Signal(10)
        limit_row, limit_panel = Signal(signed(LIMIT_BITS)), Signal(signed(LIMIT_BITS))

        # Registers, as they decide what everything else does.
        last_row, last_k, last_n = Signal(), Signal(), Signal()
        one_row, one_k = Signal(), Signal()  # the command has no more
        find_max = command.row_max & last_k
        acc_fits = acc_row < config.accumulator_words
        inside = (limit_row >= 0) & (limit_row < config.columns)

        # --- request ----------------------------------------------------------------------------
        request = prefetch.i.payload
        tag = request.tag
        m.d.comb += [
            prefetch.i.valid.eq(self.active & ~self.i_halt),
            request.both.eq(is_sparse),
            request.addr[0].eq(a_row),
            tag.write.eq(acc_fits & slots_fit),
            tag.read.eq(command.accumulate | ~first_k),
            tag.rescale.eq(command.accumulate & command.rescale & first_k),
            tag.row_max.eq(find_max),
            tag.first_panel.eq(first_n),
            tag.last.eq(last_row & last_k & last_n),
            tag.address.eq(acc_row),
            tag.slot.eq(slot),
            tag.valid_keys.eq(
                Mux(inside, limit_row.as_unsigned(), Mux(limit_row < 0, 0, config.columns))
            ),
            tag.is_unsigned.eq(command.a_unsigned),
            tag.first.eq(first_row),
            tag.last_of_tile.eq(last_row),
            tag.masked.eq(find_max & command.mask),
            tag.is_sparse.eq(is_sparse),
        ]
        if config.sparse:
            m.d.comb += request.addr[1].eq(a_row_1)
        issue = prefetch.i.valid & prefetch.i.ready
        finish = issue & tag.last
        m.d.comb += [
            self.error.valid.eq(
                prefetch.out_of_range | (issue & ~acc_fits) | (self.active & ~slots_fit)
            ),
            self.error.code.eq(ErrorCode.ONCHIP_RANGE),
            self.error.index.eq(index),
        ]

        # --- loops ------------------------------------------------------------------------------
        def start_tile(fields, a, a_1, acc, limit):
            second_words = [a_row_1.eq(a_1), a_tile_1.eq(a_1)] if config.sparse else []
            return [
                *second_words,
                first_row.eq(1),
                rows_left.eq(fields.rows),
                last_row.eq(one_row if fields is command else fields.rows == 1),
                a_row.eq(a),
                a_tile.eq(a),
                acc_row.eq(acc),
                acc_panel.eq(acc),
                slot.eq(fields.slot),
                limit_row.eq(limit),
                limit_panel.eq(limit),
            ]

        with m.If(issue):
            with m.If(~last_row):
                m.d.sync += [
                    first_row.eq(0),
                    rows_left.eq(rows_left - 1),
                    last_row.eq(rows_left == 2),
                    a_row.eq(advance(a_row, 1)),
                    a_row_1.eq(advance(a_row_1, 1)),
                    acc_row.eq(advance(acc_row, 1)),
                    slot.eq(slot + 1),
                    limit_row.eq(limit_row + command.causal),
                ]
            with m.Elif(~last_k):
                m.d.sync += start_tile(
                    command,
                    advance(a_tile, a_step),
                    advance(a_tile_1, a_step),
                    acc_panel,
                    limit_panel,
                )
                m.d.sync += [first_k.eq(0), k_left.eq(k_left - 1), last_k.eq(k_left == 2)]
            with m.Else():
                m.d.sync += start_tile(
                    command,
                    command.a_address,
                    a_start_1,
                    advance(acc_panel, command.acc_stride),
                    limit_panel - config.columns,
                )
                m.d.sync += [
                    first_k.eq(1),
                    k_left.eq(command.k_tiles),
                    last_k.eq(one_k),
                    first_n.eq(0),
                    n_left.eq(n_left - 1),
                    last_n.eq(n_left == 2),
                ]
        with m.If(finish):
            m.d.sync += self.active.eq(0)
        m.d.comb += [
            self.i_command.ready.eq((~self.active | finish) & ~self.i_hold & ~self.i_halt),
            self.started.eq(self.i_command.valid & self.i_command.ready),
        ]
        with m.If(self.started):
            uses_slots = incoming.row_max | (incoming.accumulate & incoming.rescale)
            second_panel = advance(incoming.a_address, incoming.a_stride)
            sparse_command = (incoming.opcode == Opcode.SPARSE_GEMM) if config.sparse else 0
            m.d.sync += start_tile(
                incoming, incoming.a_address, second_panel, incoming.acc_address, incoming.limit
            )
            m.d.sync += [
                is_sparse.eq(sparse_command),
                a_start_1.eq(second_panel),
                a_step.eq(Mux(sparse_command, incoming.a_stride << 1, incoming.a_stride)),
                self.active.eq(1),
                command.eq(incoming),
                index.eq(self.i_command.payload.index),
                slots_fit.eq(~uses_slots | (incoming.slot + incoming.rows <= config.row_slots)),
                first_k.eq(1),
                first_n.eq(1),
                k_left.eq(incoming.k_tiles),
                n_left.eq(incoming.n_tiles),
                last_k.eq(incoming.k_tiles == 1),
                last_n.eq(incoming.n_tiles == 1),
                one_row.eq(incoming.rows == 1),
                one_k.eq(incoming.k_tiles == 1),
            ]
        return m
