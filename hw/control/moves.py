"""What registers do to a command: they move what it is about, and say whether it is dropped."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.config import AcceleratorConfig
from hw.control.legality import commands_of
from hw.control.register_file import RegisterFile
from hw.dma.transfer import pitch
from hw.interfaces import RegisterPort, RegisterWrite, memory_layout
from hw.isa import (
    COMMAND_BYTES,
    NO_LIMIT,
    REGISTER_BITS,
    Memory,
    Opcode,
)

__all__ = ["MOVED", "Moves"]

MOVED = {
    Opcode.LOAD: "offset",
    Opcode.STORE: "offset",
    Opcode.GEMM: "limit",
    Opcode.SPARSE_GEMM: "limit",
    Opcode.SCALED_GEMM: "limit",
    Opcode.LOW_GEMM: "limit",
    Opcode.SOFTMAX: "limit",
    Opcode.ADD: "value",
}
"""The field of a command to which its register is added."""

OFFSET_BITS = 32
LIMIT_BITS = NO_LIMIT.bit_length() + 1
SPAN_BITS = 12  # a number of rows
TILE_BITS = 10  # of `n_tiles` and `k_tiles`
SUM_BITS = OFFSET_BITS + 2  # an offset and what is added to it, with a sign


class Moves(wiring.Component):
    """The registers that commands name, and two additions for each command.

    - `offset + R * pitch(memory)` of LOAD and STORE. A sum beyond 32 bits becomes the last beat of
      the 32-bit space: no window reaches to its end, as the size of a window has 32 bits.
    - `limit + R` of the other commands with `register`, no more than `NO_LIMIT`.
    - `value + R` of ADD, modulo 2**20.
    - The tiles of a GEMM with `trim`, if the configuration `trims`.
    - `limit + last + P` for the predicate's P: the command is dropped unless it is above 0, see
      `hw.isa`.

    Latency: results are valid two cycles after `i_word`, for one cycle. Throughput: a command in
    each cycle. Flow control: none; that of writes see `RegisterFile`.

    Members
    -------
    i_word: a command word as in memory. o: the sums, under the names of the fields in `MOVED`.
    o_dropped: see above. o_tiles: tiles of C columns, and of R rows, that are needed at most.
    driver, i_select, i_add, o_added: the writes, see `RegisterFile`.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        sums = {"offset": OFFSET_BITS, "limit": signed(LIMIT_BITS), "value": REGISTER_BITS}
        super().__init__(
            {
                "i_word": In(8 * COMMAND_BYTES),
                "o": Out(data.StructLayout(sums)),
                "o_dropped": Out(1),
                "o_tiles": Out(TILE_BITS).array(2),
                "driver": In(RegisterPort()),
                "i_select": In(RegisterWrite),
                "i_add": In(RegisterWrite),
                "o_added": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.file = file = RegisterFile()
        wiring.connect(m, wiring.flipped(self.driver), file.driver)
        header = memory_layout(Opcode.HALT)(self.i_word)
        m.d.comb += [
            file.i_select.eq(self.i_select),
            file.i_add.eq(self.i_add),
            self.o_added.eq(file.o_added),
            file.i_number[0].eq(header.register),
            file.i_number[1].eq(header.predicate),
        ]
        register, predicate = file.o_value
        pitches = {item: exact_log2(pitch(self._config, item)) for item in Memory if item}

        # Cycle 1: choose what to add.
        start = Signal(signed(SUM_BITS))
        step = Signal(REGISTER_BITS + max(pitches.values()))
        limit = Signal(signed(LIMIT_BITS))
        span = Signal(SPAN_BITS)  # `last + 1`
        left = Signal(REGISTER_BITS)
        conditional = Signal()
        m.d.sync += [
            step.eq(register),
            limit.eq(0),
            span.eq(1),
            left.eq(predicate),
            conditional.eq(header.predicate != 0),
        ]
        with m.Switch(header.opcode):
            for opcode, spec in commands_of(self._config).items():
                view = memory_layout(opcode)(self.i_word)
                names = {item.name for item in spec.fields}
                with m.Case(opcode):
                    if opcode in MOVED:
                        m.d.sync += start.eq(view[MOVED[opcode]])
                    if "limit" in names:
                        m.d.sync += limit.eq(view.limit)
                    if "causal" in names:
                        rows = Mux(view.period == 0, view.rows, view.period)
                        m.d.sync += span.eq(Mux(view.causal, rows, 1))
                    if "offset" in names:
                        with m.Switch(view.memory):
                            for memory, shift in pitches.items():
                                with m.Case(memory):
                                    m.d.sync += step.eq(register << shift)

        # Cycle 2: add.
        total = Signal(signed(SUM_BITS))
        least = Signal(signed(LIMIT_BITS + 1))
        left_2 = Signal(REGISTER_BITS)
        conditional_2 = Signal()
        m.d.sync += [
            total.eq(start + step),
            least.eq(limit + span - 2),
            left_2.eq(left),
            conditional_2.eq(conditional),
        ]

        # The second addition of the predicate, and the limits of the sums.
        rest = Signal(signed(REGISTER_BITS + 2))  # of what is to be above 0, less 1
        m.d.comb += [
            rest.eq(least + left_2),
            self.o_dropped.eq(conditional_2 & (rest < 0)),
            self.o.value.eq(total),
            self.o.offset.eq(total),
            self.o.limit.eq(total),
        ]
        for size, tiles in zip(
            (self._config.columns, self._config.rows), self.o_tiles, strict=True
        ):
            more = rest >> ceil_log2(size)  # tiles beside the first
            with m.If(rest < 0):
                m.d.comb += tiles.eq(1)
            with m.Elif(more[TILE_BITS - 1 :].any()):
                m.d.comb += tiles.eq(-1)
            with m.Else():
                m.d.comb += tiles.eq(more + 1)
        with m.If(total[OFFSET_BITS]):
            m.d.comb += self.o.offset.eq((1 << OFFSET_BITS) - self._config.bus_bytes)
        with m.If((total >= 0) & total[LIMIT_BITS - 1 :].any()):
            m.d.comb += self.o.limit.eq(NO_LIMIT)
        return m
