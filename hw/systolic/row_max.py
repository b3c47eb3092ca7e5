"""Row maxima: a tree behind the accumulator's write port, and the memory of running maxima."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import RowPort
from hw.isa import MASKED_SCORE
from hw.systolic.tags import delayed_tag, row_tag

__all__ = ["RowMax"]


def _larger(left, right):
    return Mux(left < right, right, left)


class RowMax(wiring.Component):
    """`ROW_MAX[slot] = max(first_panel ? MASKED_SCORE : ROW_MAX[slot], value[c] where counts[c])`.

    Number format: signed 32 bits. A row without a valid key has `MASKED_SCORE`.

    Latency: the maximum is written `latency` cycles after its row, and `done` belongs to that
    cycle, for commands without row maxima too, so that commands finish in order. Throughput: a
    row a cycle. Flow control: none. The same slot comes again for the next output tile at the
    earliest, that is after at least two cycles (a weight tile has at least two words): if that
    is while the maximum before is written, its value goes past the memory.

    Members
    -------
    tag: of the row whose results stand at `value` (before the accumulator's write). counts: the
    columns that count, from registers, as what is compared comes late in the cycle.
    row_max: the vector unit's read port, one cycle from slot to data.
    done: the last row of a command, and everything before it, is written.
    """

    def __init__(self, config: AcceleratorConfig):
        self.columns = config.columns
        self.row_slots = config.row_slots
        self.tag_layout = row_tag(config)
        super().__init__(
            {
                "tag": In(self.tag_layout),
                "counts": In(self.columns),
                "value": In(signed(32)).array(self.columns),
                "row_max": In(RowPort(32)),
                "done": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Input register, the stages of the tree, the running maximum."""
        return 2 + (self.columns - 1).bit_length()

    def elaborate(self, platform):
        m = Module()
        # Stage 1: what must not count is replaced by the smallest value.
        tag = delayed_tag(m, self.tag, "tag_1")
        values = []
        for c in range(self.columns):
            value = Signal(signed(32), name=f"value_{c}", reset_less=True)
            m.d.sync += value.eq(Mux(self.counts[c], self.value[c], MASKED_SCORE))
            values.append(value)

        # A level of comparison each.
        tags = [self.tag, tag]
        while len(values) > 1:
            stage = len(tags)
            pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
            values = []
            for i, pair in enumerate(pairs):
                value = Signal(signed(32), name=f"max_{stage + 1}_{i}", reset_less=True)
                m.d.sync += value.eq(_larger(*pair) if len(pair) == 2 else pair[0])
                values.append(value)
            tag = delayed_tag(m, tags[-1], f"tag_{stage + 1}")
            tags.append(tag)

        # The running maximum is read three cycles before it is written: of the rows before, one may
        # be writing it in the cycle of the read, and one in the cycle after.
        m.submodules.memory = mem = memory.Memory(shape=signed(32), depth=self.row_slots, init=[])
        read, vector, write = mem.read_port(), mem.read_port(), mem.write_port()
        (top,) = values
        before = tags[-2]  # where what was read is
        running = Signal(signed(32), reset_less=True)
        being_written = Signal()
        written = Signal(signed(32), reset_less=True)
        result, done_tag = Signal(signed(32), reset_less=True), delayed_tag(m, tag, "done")
        is_written = Signal()
        m.d.sync += [
            being_written.eq(write.en & (write.addr == read.addr)),
            written.eq(write.data),
            running.eq(
                Mux(
                    write.en & (write.addr == before.slot),
                    write.data,
                    Mux(being_written, written, read.data),
                )
            ),
            result.eq(Mux(tag.first_panel, top, _larger(top, running))),
            is_written.eq(tag.valid & tag.write & tag.row_max),
        ]
        m.d.comb += [
            read.addr.eq(tags[-3].slot),
            read.en.eq(1),
            vector.addr.eq(self.row_max.slot),
            vector.en.eq(1),
            self.row_max.data.eq(vector.data),
            write.addr.eq(done_tag.slot),
            write.data.eq(result),
            write.en.eq(is_written),
            self.done.eq(done_tag.valid & done_tag.last),
        ]
        return m
