"""Tile loop: the outer loops of a GEMM, n and k, as a stream of tiles."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import ADDRESS_BITS, INDEX_BITS, advance, command_layout, command_stream
from hw.isa import Opcode

__all__ = ["LIMIT_BITS", "TileLoop", "tile_layout"]

LIMIT_BITS = 20
"""Signed: an 18-bit limit, plus at most 4,095 rows, minus at most 1,022 * 128 columns."""

CONSTANTS = ("accumulate", "rescale", "row_max", "mask", "causal", "a_unsigned")
"""Fields that every tile of a command shares."""


def tile_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A tile of the loop nest: where its rows begin, and what they have in common.

    rows: of activations; with `decoder`, two for each accumulator row if the tile is `wide`.
    a_address_1: of the second words of sparse rows. last: of its command. is_low: of a LOW_GEMM.
    """
    members: dict = {
        "rows": unsigned(13 if config.decoder else 12),
        "one_row": 1,
        "a_address": ADDRESS_BITS,
        "a_address_1": ADDRESS_BITS,
        "acc_address": ADDRESS_BITS,
        "slot": 10,
        "limit": signed(LIMIT_BITS),
        "first_k": 1,
        "last_k": 1,
        "first_n": 1,
        "last": 1,
        "is_sparse": 1,
        "is_scaled": 1,
        "slots_fit": 1,
        "index": INDEX_BITS,
        **dict.fromkeys(CONSTANTS, 1),
    }
    if config.decoder:
        members |= {"period": 7, "wide": 1}
    if config.sleep:
        members |= {"is_int4": 1}
    if config.prune:
        members |= {"is_low": 1}
    return data.StructLayout(members)


class TileLoop(wiring.Component):
    """
    ```
    for n in range(n_tiles):
        for k in range(k_tiles):
            yield the tile whose rows begin at a_address + k*a_stride, acc_address + n*acc_stride
    ```
    A tile of a SPARSE_GEMM begins at panels `2*k` and `2*k + 1`.

    Latency: 2 cycles from a command to its first tile. Throughput: a tile in two cycles, fewer
    than its weights take; a cycle between commands. Flow control: streams, `o` a register; so
    rows follow each other without a gap from tile to tile and from command to command, though
    nothing of what decides here depends on the row loop in the same cycle.

    Members
    -------
    i_command: GEMM commands. o: `tile_layout`. started: a command is taken. active: one is held.
    i_hold: take no command yet. i_halt: take none any more.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.layout = tile_layout(config)
        super().__init__(
            {
                "i_command": In(command_stream()),
                "o": Out(stream.Signature(self.layout)),
                "started": Out(1),
                "active": Out(1),
                "i_hold": In(1),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = command_layout(Opcode.GEMM)
        incoming = data.View(layout, self.i_command.payload.word)
        command = Signal(layout)  # fields that nothing reads are removed by synthesis
        tile = Signal(self.layout)  # the next one
        k_left, n_left = Signal(10), Signal(10)  # this one included
        last_k, last_n, one_k = Signal(), Signal(), Signal()
        a_start_1 = Signal(ADDRESS_BITS)
        a_step = Signal(17)  # from tile to tile
        make = Signal()
        m.d.comb += make.eq(self.active & ~self.o.valid)

        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(make):
            m.d.sync += [
                self.o.payload.eq(tile),
                self.o.payload.last_k.eq(last_k),
                self.o.payload.last.eq(last_k & last_n),
                self.o.valid.eq(1),
                tile.first_k.eq(last_k),
            ]
            with m.If(last_k):
                m.d.sync += [
                    tile.a_address.eq(command.a_address),
                    tile.a_address_1.eq(a_start_1),
                    tile.acc_address.eq(advance(tile.acc_address, command.acc_stride)),
                    tile.limit.eq(tile.limit - config.columns),
                    tile.first_n.eq(0),
                    k_left.eq(command.k_tiles),
                    last_k.eq(one_k),
                    n_left.eq(n_left - 1),
                    last_n.eq(n_left == 2),
                    self.active.eq(~last_n),
                ]
            with m.Else():
                m.d.sync += [
                    tile.a_address.eq(advance(tile.a_address, a_step)),
                    tile.a_address_1.eq(advance(tile.a_address_1, a_step)),
                    k_left.eq(k_left - 1),
                    last_k.eq(k_left == 2),
                ]

        m.d.comb += [
            self.i_command.ready.eq(~self.active & ~self.i_hold & ~self.i_halt),
            self.started.eq(self.i_command.valid & self.i_command.ready),
        ]
        with m.If(self.started):
            uses_slots = incoming.row_max | (incoming.accumulate & incoming.rescale)
            is_sparse = (incoming.opcode == Opcode.SPARSE_GEMM) if config.sparse else 0
            is_scaled = (incoming.opcode == Opcode.SCALED_GEMM) if config.scales else 0
            second_panel = advance(incoming.a_address, incoming.a_stride) if config.sparse else 0
            wide = incoming.wide if config.decoder else Const(0, 1)
            m.d.sync += [
                self.active.eq(1),
                command.eq(incoming),
                tile.rows.eq(Mux(wide, incoming.rows << 1, incoming.rows)),
                tile.one_row.eq((incoming.rows == 1) & ~wide),
                tile.a_address.eq(incoming.a_address),
                tile.a_address_1.eq(second_panel),
                tile.acc_address.eq(incoming.acc_address),
                tile.slot.eq(incoming.slot),
                tile.limit.eq(incoming.limit),
                tile.first_k.eq(1),
                tile.first_n.eq(1),
                tile.is_sparse.eq(is_sparse),
                tile.is_scaled.eq(is_scaled),
                tile.slots_fit.eq(
                    ~uses_slots | (incoming.slot + incoming.rows <= config.row_slots)
                ),
                tile.index.eq(self.i_command.payload.index),
                *(tile[name].eq(incoming[name]) for name in CONSTANTS),
                k_left.eq(incoming.k_tiles),
                n_left.eq(incoming.n_tiles),
                last_k.eq(incoming.k_tiles == 1),
                last_n.eq(incoming.n_tiles == 1),
                one_k.eq(incoming.k_tiles == 1),
                a_start_1.eq(second_panel),
                a_step.eq(Mux(is_sparse, incoming.a_stride << 1, incoming.a_stride)),
            ]
            if config.sleep:
                m.d.sync += tile.is_int4.eq(incoming.w_int4)
            if config.prune:
                m.d.sync += tile.is_low.eq(incoming.opcode == Opcode.LOW_GEMM)
            if config.decoder:
                m.d.sync += [tile.wide.eq(wide), tile.period.eq(incoming.period)]
        return m
