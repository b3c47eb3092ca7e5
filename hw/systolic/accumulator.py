"""Accumulator memory: two parity banks with a read-modify-write behind the array."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import ReadPort, RowPort
from hw.isa import MASKED_SCORE
from hw.systolic.tags import row_tag

__all__ = ["SHIFT_BITS", "Accumulator"]

SHIFT_BITS = 6
"""Signed: -7 (to the left) to 31."""
LEFT = 8


class Accumulator(wiring.Component):
    """`ACC[address] = round(ACC[address], SHIFT[slot]) + psum`, a row of C sums a cycle.

    ```
    old = 0                                if not read
        = round(ACC[address], SHIFT[slot]) if read and rescale     (rounding half up; < 0: left)
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

    Source: rescaling by a power of two in the accumulator makes the online softmax correction
    free; the guard bit below rounds without a second addition.
    """

    lead = 4
    hazard_distance = lead + 1

    def __init__(self, config: AcceleratorConfig):
        self.columns = config.columns
        self.words = config.accumulator_words
        self.psum_bits = config.psum_bits
        self.tag_layout = row_tag(config)
        super().__init__(
            {
                "tag": In(self.tag_layout),
                "psum": In(signed(self.psum_bits)).array(self.columns),
                "acc_read": In(ReadPort(32 * self.columns)),
                "shift": Out(RowPort(SHIFT_BITS)),
                "result": Out(signed(32)).array(self.columns),
                "result_tag": Out(self.tag_layout),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = 32 * self.columns

        tags = [self.tag]
        for stage in range(1, self.lead + 1):
            tag = Signal(self.tag_layout, name=f"tag_{stage}")
            m.d.sync += tag.eq(tags[-1])
            tags.append(tag)
        m.d.comb += self.result_tag.eq(tags[-1])

        # Stage 0: read addresses. The array goes first.
        array_reads = self.tag.valid & self.tag.read
        vector = self.acc_read
        banks = []
        for parity in range(2):
            bank = memory.Memory(shape=unsigned(width), depth=self.words // 2, init=[])
            m.submodules[f"bank_{parity}"] = bank
            read, write = bank.read_port(), bank.write_port()
            array_takes = array_reads & (self.tag.address[0] == parity)
            m.d.comb += [
                read.addr.eq(Mux(array_takes, self.tag.address[1:], vector.addr[1:])),
                read.en.eq(array_takes | (vector.valid & (vector.addr[0] == parity))),
                write.addr.eq(tags[-1].address[1:]),
                write.data.eq(Cat(*self.result)),
                write.en.eq(tags[-1].valid & tags[-1].write & (tags[-1].address[0] == parity)),
            ]
            banks.append(read.data)
        vector_parity = Signal(reset_less=True)
        m.d.comb += [
            self.shift.slot.eq(self.tag.slot),
            vector.ready.eq(~(array_reads & (self.tag.address[0] == vector.addr[0]))),
            vector.out_of_range.eq(vector.addr >= self.words),
            vector.data.eq(Mux(vector_parity, banks[1], banks[0])),
        ]
        m.d.sync += vector.data_valid.eq(vector.valid & vector.ready)
        m.d.sync += vector_parity.eq(vector.addr[0])

        # Stage 1: a register behind the memory.
        # Stage 2: coarse shift by a multiple of 8. The value begins LEFT bits up, so that a shift
        # to the left is a smaller one to the right; a guard bit below it becomes the rounding bit.
        old = Signal(width, reset_less=True)
        right = Signal(SHIFT_BITS, reset_less=True)
        fine = Signal(3, reset_less=True)
        m.d.sync += [
            old.eq(Mux(tags[1].address[0], banks[1], banks[0])),
            right.eq(LEFT + Mux(tags[1].rescale, self.shift.data.as_signed(), 0)),
            fine.eq(right[:3]),
        ]
        for c in range(self.columns):
            coarse = Signal(signed(33 + LEFT), name=f"coarse_{c}", reset_less=True)
            guarded = Cat(Const(0, 1 + LEFT), old[32 * c : 32 * (c + 1)]).as_signed()
            m.d.sync += coarse.eq(guarded >> Cat(Const(0, 3), right[3:]))
            # Stage 3: fine shift; nothing to add for an overwriting row.
            scaled = Signal(signed(33), name=f"scaled_{c}", reset_less=True)
            m.d.sync += scaled.eq(Mux(tags[3].read, coarse >> fine, 0))
            # Stage 4: add, mask, write.
            total = Signal(signed(32), name=f"total_{c}")
            masked = tags[4].row_max & ~tags[4].keep[c]
            m.d.comb += [
                total.eq(scaled[1:].as_signed() + scaled[0] + self.psum[c]),
                self.result[c].eq(Mux(masked, Const(MASKED_SCORE, signed(32)), total)),
            ]
        return m
