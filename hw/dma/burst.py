"""Burst generator: the DRAM side of a 2-D transfer, cut into AXI bursts inside its window."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.config import AcceleratorConfig
from hw.interfaces import INDEX_BITS, UnitError
from hw.isa import ErrorCode

__all__ = ["BurstGenerator", "burst_layout", "transfer_layout"]


def transfer_layout(config: AcceleratorConfig) -> data.StructLayout:
    """The DRAM half of a LOAD or STORE.

    base, size: the window. forbidden: the window may not be used this way (read-only).
    word_beats_log2: log2 of the beats of a word. offset, words, runs, stride: as in `hw.isa`.
    """
    beats = max(config.param_pitch, config.weight_pitch, config.activation_pitch, config.mask_pitch)
    return data.StructLayout(
        {
            "base": unsigned(config.address_bits),
            "size": 32,
            "forbidden": 1,
            "offset": 32,
            "words": 16,
            "runs": 16,
            "stride": 32,
            "word_beats_log2": range(exact_log2(beats // config.bus_bytes) + 1),
            "index": INDEX_BITS,
        }
    )


def burst_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One burst: byte address, number of beats, whether it ends its command."""
    return data.StructLayout(
        {
            "address": unsigned(config.address_bits),
            "beats": range(config.burst_bytes // config.bus_bytes + 1),
            "last": 1,
            "index": INDEX_BITS,
        }
    )


READY_BURSTS = 8
"""Checked bursts that wait to be taken."""


class BurstGenerator(wiring.Component):
    """Cuts `runs` runs of `words` words, `stride` bytes apart, into bursts.

    A burst never crosses a block of `burst_bytes`, and is as long as that allows. Where `stride`
    is just the length of a run, runs are joined: the generator counts the beats that it knows to
    be contiguous, adds a run each cycle while that is little, and issues a burst when it reaches
    the end of the block. So neither a multiplier nor a second pass is needed, and all but separate
    runs of one beat keep up with the bus.

    Every burst is checked before it is offered. If it leaves the window (or the address space),
    or if the window is `forbidden` or its base unaligned, `error` is `DMA_WINDOW`, and nothing more
    is offered. Offset and stride are multiples of the bus width: dispatch refuses others.

    Latency: 5 cycles from command to burst (when the first block or run is known: a cycle more
    for each joined run). Throughput: one burst in two cycles, 4 cycles a command at least. Flow
    control: streams; checked bursts wait in a FIFO, so whoever takes them is far away from the
    loop. With `i_halt` no burst is offered.

    Members
    -------
    i: `transfer_layout`. o: `burst_layout`. error: `UnitError`, stays until reset.
    i_halt: see above.
    """

    def __init__(self, config: AcceleratorConfig):
        self._transfer = transfer_layout(config)
        self._burst = burst_layout(config)
        self._bus_log2 = exact_log2(config.bus_bytes)
        self._block_log2 = exact_log2(config.burst_bytes) - self._bus_log2
        self._address_bits = config.address_bits
        super().__init__(
            {
                "i": In(stream.Signature(self._transfer)),
                "o": Out(stream.Signature(self._burst)),
                "error": Out(UnitError),
                "i_halt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shift, block_log2 = self._bus_log2, self._block_log2
        block = 1 << block_log2
        transfer = self.i.payload
        accept = self.i.valid & self.i.ready

        # All quantities below are in beats. An offset is checked within two bursts after it is
        # made and each adds less than 2^32 bytes to one that was inside, so 35 bits suffice.
        offset_bits = 35 - shift
        run_bits = 16 + (1 << len(transfer.word_beats_log2)) - 1
        command = Signal(self._transfer)
        run_beats = Signal(run_bits)
        joined = Signal()
        new_run_beats = Signal(run_bits)
        m.d.comb += new_run_beats.eq(transfer.words << transfer.word_beats_log2)

        # Stage 1: length of the next burst, from what is known of the runs. A cycle to decide, then
        # one to go on. Runs that join meanwhile change nothing of what was decided to be issued.
        active = Signal()
        cursor, next_start = Signal(offset_bits), Signal(offset_bits)
        phase = Signal(block_log2)  # beats from the start of the block to the cursor
        known = Signal(run_bits + 2)  # contiguous beats from the cursor on
        # Fewer than two blocks a cycle ago: at most one run more than needed is added.
        few = Signal()
        runs_left = Signal(16)  # not in `known` yet
        none_left = Signal()
        to_block_end = Signal(range(block + 1))
        enough, complete, issue, join = (
            Signal(name=name) for name in ("enough", "complete", "issue", "join")
        )
        decided = Signal()
        beats = Signal(range(block + 1))
        end_of_run, last, found = Signal(), Signal(), Signal()
        cursor_end = Signal(offset_bits)
        checked = Signal()  # stage 2 holds a burst, for one cycle
        m.submodules.ready = ready = fifo.SyncFIFO(width=self._burst.size, depth=READY_BURSTS)
        room = Signal()
        # Three bursts may be on their way to the FIFO.
        m.d.sync += room.eq(ready.level < READY_BURSTS - 2)
        m.d.comb += [
            to_block_end.eq(block - phase),
            enough.eq(known >= to_block_end),
            complete.eq(~joined | none_left),
            join.eq(active & ~complete & few),
            issue.eq(decided & found & room),
            cursor_end.eq(cursor + beats),
        ]
        m.d.sync += [
            few.eq(known < 2 * block),
            decided.eq(active & ~issue),
            found.eq(enough | complete),
            beats.eq(Mux(enough, to_block_end, known)),
            end_of_run.eq(complete & (known <= to_block_end)),
            last.eq(none_left & complete & (known <= to_block_end)),
        ]
        base_beats = command.base[shift:]
        with m.If(issue & end_of_run):
            m.d.sync += [
                cursor.eq(next_start),
                next_start.eq(next_start + command.stride[shift:]),
                phase.eq((base_beats + next_start)[:block_log2]),
                known.eq(run_beats),
                active.eq(~last),
            ]
        with m.Else():
            with m.If(issue):
                m.d.sync += [cursor.eq(cursor_end), phase.eq(0)]
            m.d.sync += known.eq(known - Mux(issue, beats, 0) + Mux(join, run_beats, 0))
        with m.If(join | (issue & end_of_run)):
            m.d.sync += [runs_left.eq(runs_left - 1), none_left.eq(runs_left == 1)]

        # Stage 2: address and window.
        offset, end = Signal(offset_bits), Signal(offset_bits)
        closed = Signal()
        address = Signal(max(self._address_bits - shift, offset_bits) + 1)
        outside, failed = Signal(), Signal()
        burst = Signal(self._burst)
        beats_2, last_2 = Signal.like(beats), Signal()
        m.d.comb += [
            address.eq(base_beats + offset),
            outside.eq(
                closed | (end > command.size[shift:]) | address[self._address_bits - shift :].any()
            ),
            burst.address.eq(address << shift),
            burst.beats.eq(beats_2),
            burst.last.eq(last_2),
            burst.index.eq(command.index),
        ]
        m.d.sync += checked.eq(issue)
        with m.If(issue):
            m.d.sync += [
                offset.eq(cursor),
                end.eq(cursor_end),
                beats_2.eq(beats),
                last_2.eq(last),
            ]

        # Stage 3: to the FIFO, or the error.
        good, burst_3, index_3 = Signal(), Signal.like(burst, name="burst_3"), Signal(INDEX_BITS)
        bad = Signal()
        m.d.sync += [
            good.eq(checked & ~outside),
            bad.eq(checked & outside),
            index_3.eq(command.index),
            burst_3.eq(burst),
        ]
        m.d.comb += [
            ready.w_data.eq(burst_3),
            ready.w_en.eq(good & ~failed),
            self.o.valid.eq(ready.r_rdy & ~self.i_halt),
            self.o.payload.eq(ready.r_data),
            ready.r_en.eq(self.o.valid & self.o.ready),
            self.error.valid.eq(failed),
            self.error.code.eq(ErrorCode.DMA_WINDOW),
        ]
        with m.If(bad & ~failed):
            m.d.sync += [failed.eq(1), self.error.index.eq(index_3)]

        # A new command, when the last burst of the one before has left. All registers are loaded
        # while there is room for one: whether one is there, `active` says alone.
        idle = Signal()
        m.d.comb += [idle.eq(~active & ~checked), self.i.ready.eq(idle & ~self.i_halt)]
        start = transfer.offset[shift:]
        with m.If(idle):
            m.d.sync += [
                active.eq(accept),
                command.eq(transfer),
                run_beats.eq(new_run_beats),
                joined.eq(new_run_beats == transfer.stride[shift:]),
                known.eq(new_run_beats),
                runs_left.eq(transfer.runs - 1),
                none_left.eq(transfer.runs == 1),
                cursor.eq(start),
                next_start.eq(start + transfer.stride[shift:]),
                phase.eq((transfer.base[shift:] + start)[:block_log2]),
                closed.eq(transfer.forbidden | (transfer.base[:shift] != Const(0, shift))),
            ]
        return m
