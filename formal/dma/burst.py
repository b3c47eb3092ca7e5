"""`hw/dma/burst.py`: every burst lies in its window and in one block, and `last` ends a command.

The window belongs to the command that the burst names by its index. Commands that are in the unit
together have different indices; so one command is followed, any one, by its index.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from amaranth import Signal, Value

from formal.model import Model
from formal.mutants import Mutant
from formal.order import stays
from formal.prove import Induction, Proof
from hw.config import AcceleratorConfig, get_config
from hw.dma.burst import READY_BURSTS, BurstGenerator, transfer_layout
from hw.interfaces import INDEX_BITS

__all__ = ["PROOFS", "small_bursts"]


def small_bursts() -> AcceleratorConfig:
    """`tiny` with blocks of four beats."""
    return replace(get_config("tiny"), name="small", burst_bytes=16)


class Followed:
    """The one command that is followed, and what its bursts must be like."""

    def __init__(self, model: Model, config: AcceleratorConfig, unit: BurstGenerator):
        m = model.m
        self._bus_bytes, self._block = config.bus_bytes, config.burst_bytes // config.bus_bytes
        self._top = 1 << config.address_bits
        self.index = model.constant(INDEX_BITS, "index")
        self.command = Signal(transfer_layout(config))
        self.seen = Signal()
        transfer = unit.i.payload
        self.taken = unit.i.valid & unit.i.ready & (transfer.index == self.index)
        with m.If(self.taken):
            m.d.sync += [self.command.eq(transfer), self.seen.eq(1)]
        beat = config.bus_bytes - 1
        model.assume("some_words", (transfer.words != 0) & (transfer.runs != 0))
        whole = ((transfer.offset & beat) == 0) & ((transfer.stride & beat) == 0)
        model.assume("whole_beats", whole)
        model.assume("index_once", ~self.taken | ~self.seen)

    def in_window(self, address: Value, beats: Value) -> Value:
        """In unbounded integers. address: of the first byte."""
        window = self.command
        end = address + beats * self._bus_bytes
        inside = (address >= window.base) & (end <= window.base + window.size) & (end <= self._top)
        return inside & ~window.forbidden & ((window.base & (self._bus_bytes - 1)) == 0)

    def in_block(self, address: Value, beats: Value) -> Value:
        place = (address // self._bus_bytes) % self._block
        aligned = (address & (self._bus_bytes - 1)) == 0
        return aligned & (beats >= 1) & (place + beats <= self._block)


def bursts(config: AcceleratorConfig) -> Model:
    model = Model()
    unit = model.unit(BurstGenerator(config))
    model.drive(unit)
    mine = Followed(model, config, unit)
    inside = model.inside(unit)
    shift, block = unit._bus_log2, 1 << unit._block_log2
    o = unit.o.payload
    here = unit.o.valid & (o.index == mine.index)
    model.prove("in_window", ~here | (mine.seen & mine.in_window(o.address, o.beats)))
    model.prove("in_block", ~unit.o.valid | mine.in_block(o.address, o.beats))
    model.prove("stable", stays(model, unit.o.valid, unit.o.ready, o) | unit.i_halt)
    ended = Signal()
    model.m.d.sync += ended.eq(ended | (here & unit.o.ready & o.last))
    model.prove("last", ~here | ~ended)
    model.prove("halts", ~unit.i_halt | (~unit.o.valid & ~unit.i.ready))

    # Stage 1. Numbers of beats; those of the cursor are exact as long as nothing has failed.
    command, active, checked = inside.command, inside.active, inside.checked
    this = command.index == mine.index
    stride, base = command.stride[shift:], command.base[shift:]
    failed = inside.bad | inside.failed
    known, run, few = inside.known, inside.run_beats, inside.few
    cursor, following = inside.cursor, inside.next_start
    beats, decided = inside.beats, inside.decided & inside.found
    model.lemma("command", ~(active | checked) | ~this | (mine.seen & (command == mine.command)))
    model.lemma("runs", (run != 0) | ~active)
    model.lemma("whole", ~active | ((command.offset | command.stride)[:shift] == 0))
    model.lemma("few", ~few | (known < 2 * block + run))
    model.lemma("known", known < 2 * block + 2 * run)
    model.lemma("some", ~active | (known != 0) | (inside.joined & ~inside.none_left))
    model.lemma("phase", ~active | (inside.phase == (base + cursor)[: unit._block_log2]))
    fits = (beats >= 1) & (beats <= known) & (beats <= inside.to_block_end)
    model.lemma("beats", ~(active & decided) | fits)
    ends, more = inside.end_of_run, inside.joined & ~inside.none_left
    model.lemma("rest", ~(active & decided) | ends | (known > beats) | more)
    model.lemma("to_end", ~(active & decided) | ends | (beats == inside.to_block_end))
    model.lemma("last_run", ~(active & decided & inside.last) | ends)
    closed = command.forbidden | command.base[:shift].any()
    model.lemma("closed", ~(active | checked) | (inside.closed == closed))
    model.lemma("apart", ~checked | ~inside.decided)
    model.lemma("active", ~inside.decided | active)
    far = 1 << (33 - shift)
    model.lemma("start", failed | ~active | (following <= cursor + stride))
    model.lemma("cursor", failed | checked | ~active | (cursor < far))

    # Stage 2: checked; stage 3: on its way to the FIFO.
    offset, end = inside.offset, inside.end
    model.lemma("end", failed | ~checked | ((end == offset + inside.beats_2) & (offset < far)))
    onward = (cursor <= end) | (cursor <= offset + stride)
    model.lemma("onward", failed | ~checked | ~active | onward)
    whole = (base + offset)[: unit._block_log2] + inside.beats_2 <= block
    model.lemma("block", ~checked | ((inside.beats_2 >= 1) & whole))
    third = inside.burst_3
    good = inside.good & ~inside.failed
    model.lemma("third", ~(inside.good | inside.bad) | (third.index == inside.index_3))
    theirs = good & (third.index == mine.index)
    model.lemma("third_window", ~theirs | mine.seen & mine.in_window(third.address, third.beats))
    model.lemma("third_block", ~good | mine.in_block(third.address, third.beats))
    address = Signal(64)
    model.m.d.comb += address.eq((base + offset) << shift)
    right = inside.outside == ~mine.in_window(address, inside.beats_2)
    model.prove("refuses", failed | ~checked | ~this | right)

    # What waits in the FIFO, and where in it the last burst of the command is.
    ready, queue = inside.ready, model.inside(inside.ready)
    level, oldest, newest = ready.level, queue.consume, queue.produce
    held = level + inside.good + checked
    model.prove("kept", ~ready.w_en | ready.w_rdy)
    model.lemma("exclusive", ~(inside.good | inside.bad) | ~checked)
    model.lemma("held", (held <= READY_BURSTS) & (~inside.room | (held < READY_BURSTS)))
    model.lemma("pointers", ((newest - oldest)[:3] == level[:3]) & (level <= READY_BURSTS))
    last_waits, last_cell = Signal(), Signal.like(newest)
    left = ready.r_rdy & ready.r_en
    with model.m.If(ready.w_en & theirs & third.last):
        model.m.d.sync += [last_waits.eq(1), last_cell.eq(newest)]
    with model.m.Elif(left & (oldest == last_cell)):
        model.m.d.sync += last_waits.eq(0)
    newer = theirs | checked & this | active & this
    before_last = (last_cell - oldest)[:3]
    for i in range(READY_BURSTS):
        cell = Signal(o.shape(), name=f"cell_{i}")
        model.m.d.comb += Value.cast(cell).eq(model.cell(queue.storage, i))
        position = (i - oldest)[:3]
        full = position < level
        its = full & (cell.index == mine.index)
        model.lemma(f"window_{i}", ~its | mine.seen & mine.in_window(cell.address, cell.beats))
        model.lemma(f"block_{i}", ~full | mine.in_block(cell.address, cell.beats))
        model.lemma(f"last_{i}", ~its | ~cell.last | (last_waits & (last_cell == i)))
        model.lemma(f"order_{i}", ~its | ~last_waits | (position <= before_last))
        model.lemma(f"ended_{i}", ~its | ~ended)
    model.lemma("waits", ~last_waits | (before_last < level))
    model.lemma("ended", ~(ended | last_waits) | ~newer)
    model.lemma("waits_seen", ~last_waits | mine.seen)
    model.lemma("ended_seen", ~ended | mine.seen)
    model.lemma("third_last", ~theirs | ~third.last | ~(checked & this | active & this))
    model.lemma("second_last", ~(checked & this) | ~inside.last_2 | ~(active & this))
    return model


HW = "hw.dma.burst"
MUTANTS = (
    Mutant("in_window", HW, "(end > command.size[shift:])", "(offset > command.size[shift:])"),
    Mutant("in_window", HW, "address[self._address_bits - shift :].any()", "0"),
    Mutant("in_window", HW, "closed | (end", "(end"),
    Mutant("in_block", HW, "phase.eq((base_beats + next_start)[:block_log2])", "phase.eq(0)"),
    Mutant("in_block", HW, "to_block_end.eq(block - phase)", "to_block_end.eq(block)"),
    Mutant("stable", HW, "self.o.valid & self.o.ready", "self.o.valid"),
    Mutant("last", HW, "active.eq(~last)", "active.eq(1)"),
    Mutant("halts", HW, "ready.r_rdy & ~self.i_halt", "ready.r_rdy"),
    Mutant("kept", HW, "ready.level < READY_BURSTS - 2", "ready.level < READY_BURSTS"),
    Mutant("refuses", HW, "cursor_end.eq(cursor + beats)", "cursor_end.eq(cursor + block)"),
)

PROOFS = (
    Proof(
        "dma.burst",
        {
            "base": partial(bursts, get_config("base")),
            "tiny, blocks of 4 beats": partial(bursts, small_bursts()),
        },
        Induction(),
        MUTANTS,
        cycles=26,
        quick=False,
    ),
)
