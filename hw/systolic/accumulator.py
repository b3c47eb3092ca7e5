"""Accumulator memory: two parity banks with a read-modify-write behind the array."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.block_ram import BlockRam
from hw.columns import GROUP, copies, register
from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import ReadPort, RowPort
from hw.isa import MASKED_SCORE
from hw.systolic.tags import delayed_tag, row_tag

__all__ = ["SHIFT_BITS", "Accumulator"]

SHIFT_BITS = 6
"""Signed: -7 (to the left) to 31."""
LEFT = 8
BYTE = 8


class Accumulator(wiring.Component):
    """`ACC[address] = round(ACC[address], SHIFT[slot]) + psum`, a row of C sums a cycle.

    ```
    old = 0                                if not read
        = round(ACC[address], SHIFT[slot]) if read and rescale     (rounding half up; < 0: left)
        = round(ACC[address], 8)           if by_byte as well
        = ACC[address]                     otherwise
    result[c] = keep[c] or not row_max ? old[c] + psum[c] : MASKED_SCORE
    ```
    Number format: C signed 32-bit sums that wrap (the compiler proves that they do not).

    Two banks by the parity of the address, each with one read and one write port. The array takes
    a bank's read port whenever it needs it; as its rows alternate between the banks, `acc_read`
    finds the other bank free in every cycle.

    Latency: `psum` is taken `lead` cycles after the row's tag, and written in that cycle.
    Throughput: a row a cycle. Flow control: none on the array's side. A row that reads an address
    must follow the row that wrote it by at least `hazard_distance` cycles, which the matrix unit
    ensures when rows enter the array; `acc_read` sees a row from the cycle after its write.

    Collisions: no read-modify-write reads an address in the cycle of its write (that is the
    hazard distance), and a vector command that reads what the array is writing lacks a wait; the
    memory may return anything for it.

    Members
    -------
    tag: of the row whose read begins in this cycle. psum: sums of the row `lead` cycles earlier.
    acc_read: the vector unit. shift: SHIFT, one cycle from slot to data.
    result, result_tag: what is written in this cycle (before registers), for the row maximum.
    counts: columns below the `valid_keys` of that row, from registers.

    Source: rescaling by a power of two in the accumulator makes the online softmax correction
    free; the guard bit below rounds without a second addition.
    """

    lead = 4
    hazard_distance = lead + 1

    def __init__(self, config: AcceleratorConfig):
        self.columns = config.columns
        self.words = config.accumulator_words
        self.decoder = config.decoder
        self.sum_bits = config.sum_bits
        self.tag_layout = row_tag(config)
        super().__init__(
            {
                "tag": In(self.tag_layout),
                "psum": In(signed(self.sum_bits)).array(self.columns),
                "acc_read": In(ReadPort(32 * self.columns)),
                "shift": Out(RowPort(SHIFT_BITS)),
                "result": Out(signed(32)).array(self.columns),
                "result_tag": Out(self.tag_layout),
                "counts": Out(self.columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tags = [self.tag]
        for stage in range(1, self.lead + 1):
            tags.append(delayed_tag(m, tags[-1], f"tag_{stage}"))
        before_write = tags[-2]
        counts = Cat(c < before_write.valid_keys for c in range(self.columns))
        m.d.comb += [
            self.result_tag.eq(tags[-1]),
            self.counts.eq(register(m, counts, "counts_register")),
        ]

        # Stage 0: read addresses. The array goes first.
        array_reads = self.tag.valid & self.tag.read
        vector = self.acc_read
        banks = []
        for parity in range(2):
            bank = BlockRam(32 * self.columns, self.words // 2)
            m.submodules[f"bank_{parity}"] = bank
            array_takes = array_reads & (self.tag.address[0] == parity)
            write = before_write.valid & before_write.write & (before_write.address[0] == parity)
            write_en = Signal(name=f"write_en_{parity}")
            m.d.sync += write_en.eq(write)
            near = copies(m, {"write_addr": before_write.address[1:]}, str(parity))
            m.d.comb += [
                bank.read_addr.eq(Mux(array_takes, self.tag.address[1:], vector.addr[1:])),
                bank.read_en.eq(array_takes | (vector.valid & (vector.addr[0] == parity))),
                bank.write_addr.eq(near["write_addr"]),
                bank.data.eq(Cat(*self.result)),
                bank.write_en.eq(write_en),
            ]
            banks.append(bank.o)
        vector_takes = DelayLine(m, vector.valid & vector.ready, "vector_takes", reset=True)
        vector_parity = DelayLine(m, vector.addr[0], "vector_parity")
        m.d.comb += [
            self.shift.slot.eq(self.tag.slot),
            vector.ready.eq(~(array_reads & (self.tag.address[0] == vector.addr[0]))),
            vector.out_of_range.eq(vector.addr >= self.words),
            vector.data.eq(Mux(vector_parity[BlockRam.latency], banks[1], banks[0])),
            vector.data_valid.eq(vector_takes[BlockRam.latency]),
        ]

        # Stages 0 and 1: the memory. Beside it, the shift: the value begins LEFT bits up, so that a
        # shift to the left is a smaller one to the right; a guard bit below it becomes the
        # rounding bit.
        # Stage 2: coarse shift by a multiple of 8.
        # What all columns need has copies, made a cycle ahead.
        shift = self.shift.data.as_signed()
        if self.decoder:
            shift = Mux(tags[1].by_byte, BYTE, shift)
        right = LEFT + Mux(tags[1].rescale, shift, 0)
        near = {}
        for c in range(self.columns):
            if c % GROUP == 0:
                group = str(c // GROUP)
                near = copies(m, {"right": right[:SHIFT_BITS], "parity": tags[1].address[0]}, group)
                near |= copies(m, {"fine": near["right"][:3], "read": tags[2].read}, group)
            old = Mux(near["parity"], *(word[32 * c : 32 * (c + 1)] for word in banks[::-1]))
            coarse = Signal(signed(33 + LEFT), name=f"coarse_{c}", reset_less=True)
            guarded = Cat(Const(0, 1 + LEFT), old).as_signed()
            m.d.sync += coarse.eq(guarded >> Cat(Const(0, 3), near["right"][3:]))
            # Stage 3: fine shift; nothing to add for an overwriting row.
            scaled = Signal(signed(33), name=f"scaled_{c}", reset_less=True)
            m.d.sync += scaled.eq(Mux(near["read"], coarse >> near["fine"], 0))
            # Stage 4: add, mask, write.
            total = Signal(signed(32), name=f"total_{c}")
            masked = register(m, before_write.row_max & ~before_write.keep[c], f"masked_{c}")
            m.d.comb += [
                total.eq(scaled[1:].as_signed() + scaled[0] + self.psum[c]),
                self.result[c].eq(Mux(masked, Const(MASKED_SCORE, signed(32)), total)),
            ]
        return m
