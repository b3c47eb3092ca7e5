"""64-bit event counters in one small memory: narrow counters in front, swept in turn."""

from __future__ import annotations

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Counters"]

COUNTER_BITS = 64


class Counters(wiring.Component):
    """`value[i]` grows by one in every cycle with `i_event[i]`, exactly.

    Every counter is a few flip-flops wide. A sweep visits one counter a cycle, adds what it has
    gathered to its 64-bit word in a memory, and starts it anew: sixteen 64-bit counters cost one
    64-bit adder. A clear only marks the words as void; the sweep passes every mark once.

    Latency: a read answers within `count` + 2 cycles, with the exact value of three cycles before,
    or 0 if a clear came since. Throughput: an event of every counter a cycle. Flow control:
    `i_read` is held until `o_valid`.

    Parameters
    ----------
    count: number of counters, a power of two, 4 or more: the sweep reads a word three cycles
        after it has chosen it for the time before at the earliest, when it has been written.

    Members
    -------
    i_event: one bit for each counter. i_clear: all counters to 0.
    i_read, i_select: read request. o_valid: `o_value` is the value of counter `i_select`.
    """

    def __init__(self, count: int):
        if count < 4 or count & (count - 1):
            raise ValueError(f"count={count} must be a power of two, 4 or more")
        self._count = count
        super().__init__(
            {
                "i_event": In(count),
                "i_clear": In(1),
                "i_read": In(1),
                "i_select": In(range(count)),
                "o_valid": Out(1),
                "o_value": Out(COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=COUNTER_BITS, depth=self._count, init=[])
        read = words.read_port(domain="comb")
        write = words.write_port()

        turn = Signal(range(self._count))
        void = Signal(self._count)
        m.d.sync += turn.eq(turn + 1)  # wraps: the count is a power of two

        # A sweep takes `count` cycles, so at most `count` events gather.
        gathered = [
            Signal(range(self._count + 1), name=f"gathered_{i}") for i in range(self._count)
        ]
        # Choosing takes a cycle, reading the next, adding and writing the third.
        reading = Signal.like(turn)
        chosen = Signal(range(self._count + 1))
        is_void = Signal()
        adding = Signal.like(turn)
        more = Signal.like(chosen)
        word = Signal(COUNTER_BITS)
        m.d.sync += [
            reading.eq(turn),
            chosen.eq(Array(gathered)[turn]),
            is_void.eq(void.bit_select(turn, 1)),
            adding.eq(reading),
            more.eq(chosen),
            word.eq(Mux(is_void, 0, read.data)),
        ]
        with m.If(self.i_clear):
            m.d.sync += [chosen.eq(0), is_void.eq(1), more.eq(0), word.eq(0)]
        total = Signal(COUNTER_BITS)
        m.d.comb += [
            read.addr.eq(reading),
            write.addr.eq(adding),
            write.en.eq(1),
            write.data.eq(total),
            total.eq(word + more),
        ]
        for i in range(self._count):
            with m.If(self.i_clear):
                m.d.sync += [gathered[i].eq(0), void[i].eq(1)]
            with m.Elif(turn == i):
                m.d.sync += [gathered[i].eq(self.i_event[i]), void[i].eq(0)]
            with m.Else():
                m.d.sync += gathered[i].eq(gathered[i] + self.i_event[i])

        m.d.sync += [
            self.o_valid.eq(self.i_read & (adding == self.i_select) & ~self.o_valid),
            self.o_value.eq(total),
        ]
        return m
