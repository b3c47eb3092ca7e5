"""Matrix unit: weight loader, row streamer, array, accumulator and row maxima as one unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.cells.clock_gate import gated_clock
from hw.config import AcceleratorConfig
from hw.control.activity import activity_layout
from hw.delay import DelayLine
from hw.interfaces import (
    MatrixState,
    ReadPort,
    RowPort,
    UnitStatus,
    command_stream,
)
from hw.sparse.unpack import group_scales
from hw.systolic.accumulator import SHIFT_BITS, Accumulator
from hw.systolic.array import SystolicArray
from hw.systolic.mask import MaskReader
from hw.systolic.row_max import RowMax
from hw.systolic.rows import RowStreamer
from hw.systolic.tags import delayed_tag, row_tag
from hw.systolic.weights import WeightLoader

__all__ = ["MatrixUnit"]

SETTLING = 24
"""Cycles that what follows from a word, a row or a command takes within the streams at most."""

IN_FLIGHT_BITS = 8
"""Commands between start and done: at most one per two cycles of the longest pipeline."""


ACTIVITY = (
    "rows_",
    "tiles",
    "weight_entries",
    "accumulator_read_matrix",
    "accumulator_write_matrix",
    "idle_array",
    "asleep_streams",
    "asleep_array",
    "asleep_sums",
)
"""Of the counters of `sleep`, those of this unit, or what they begin with."""


Gates = Mapping[str, Callable[[Any], Any]]


class MatrixUnit(wiring.Component):
    """Executes the matrix commands: loop nests in `hw/isa.py`, and `hw/systolic/golden.py`.

    ```
    i_weights -> WeightLoader --words--> SystolicArray --psum--> Accumulator --rows--> RowMax
    i_stream  -> RowStreamer  --rows---------^   tags ------------^
              -> MaskReader   --masks------------/
    ```
    A row enters the array when (a) it is not the first of its tile or the shadow weights hold its
    tile, (b) its mask word is there if it needs one, and (c) no row that writes the accumulator
    word it reads entered less than `Accumulator.hazard_distance` cycles ago. From there to the
    accumulator nothing stalls, so distances in time are kept and (c) excludes every hazard, for
    any addresses, strides and sequences of commands; it costs nothing while tiles have at least
    `hazard_distance` rows or words. All three are decided in the cycle before, for the cycle in
    which they hold.

    Latency: `latency` cycles from the cycle in which the last row enters to `done`.
    Throughput: a row a cycle; a tile takes max(rows, words of the tile) cycles (one more for INT4
    multipliers, two for scales and offsets), see `hw/sparse/packing.py`, without a gap between
    tiles or commands. Those of a wide command have two rows for each word of the accumulator.
    Flow control: the same commands come through both streams in the same order, each when its own
    waits are met; weights may run ahead by one tile and the FIFO.

    Members
    -------
    i_weights, i_stream: GEMM commands, for their weights and for everything else.
    activation, weight, mask: read ports of the memories (of the activation memory one for each
    word of a row). shift: SHIFT of the vector unit.
    acc_read, row_max: the vector unit reads results here.
    status: `done` when the accumulator and row maxima of the oldest command are visible.
    state: `BUSY` when a row enters; `WEIGHTS` when (a) holds it back; `ACTIVATIONS` when anything
        else does; `IDLE` without a command in `i_stream` or in the row streamer.
    i_halt: take no command any more (until reset); those that were taken go on, which nobody sees.

    With the option `sleep`: activity: what is counted. i_reading: the vector unit may read row
    maxima or the accumulator.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        sleep = {"activity": Out(activity_layout(*ACTIVITY)), "i_reading": In(1)}
        super().__init__(
            {
                "i_weights": In(command_stream()),
                "i_stream": In(command_stream()),
                "activation": Out(ReadPort(8 * config.rows)).array(2 if config.sparse else 1),
                "weight": Out(ReadPort(8 * config.weight_bytes)),
                "mask": Out(ReadPort(config.columns)),
                "acc_read": In(ReadPort(32 * config.columns)),
                "row_max": In(RowPort(32)),
                "shift": Out(RowPort(SHIFT_BITS)),
                "status": Out(UnitStatus()),
                "state": Out(MatrixState),
                "i_halt": In(1),
                **(sleep if config.sleep else {}),
            }
        )
        self.weights = WeightLoader(config)
        self.rows = RowStreamer(config)
        self.masks = MaskReader(config)
        self.array = SystolicArray(config)
        self.accumulator = Accumulator(config)
        self.maxima = RowMax(config)

    @property
    def latency(self) -> int:
        return self.array.latency + self.maxima.latency

    def elaborate(self, platform):
        m = Module()
        weights, rows, masks, array = self.weights, self.rows, self.masks, self.array
        accumulator, maxima = self.accumulator, self.maxima
        busy = {name: Signal(name=f"{name}_busy") for name in ("streams", "array", "sums")}
        resting = self._resting(m, platform, busy)
        m.submodules.weights = resting["streams"](weights)
        m.submodules.rows = resting["streams"](rows)
        m.submodules.masks = resting["streams"](masks)
        m.submodules.array = resting["array"](array)
        m.submodules.accumulator = resting["sums"](accumulator)
        m.submodules.maxima = resting["sums"](maxima)
        connect, flipped = wiring.connect, wiring.flipped
        connect(m, weights.i_command, flipped(self.i_weights))
        connect(m, weights.weight, flipped(self.weight))
        connect(m, rows.i_command, flipped(self.i_stream))
        for port, memory in zip(rows.activation, self.activation, strict=True):
            connect(m, port, flipped(memory))
        connect(m, masks.mask, flipped(self.mask))
        connect(m, accumulator.acc_read, flipped(self.acc_read))
        connect(m, accumulator.shift, flipped(self.shift))
        connect(m, maxima.row_max, flipped(self.row_max))
        m.d.comb += [
            weights.i_halt.eq(self.i_halt),
            rows.i_halt.eq(self.i_halt),
            rows.i_hold.eq(masks.active),
            masks.i_command.eq(self.i_stream.payload),
            masks.i_start.eq(rows.started),
        ]

        # --- the row at the door ------------------------------------------------------------------
        # A row waits in `coming`, then at the door. Whether it enters is decided a cycle ahead and
        # ends in a few registers, as it moves everything behind it.
        given = rows.o.payload
        coming, door = (
            Signal(given.shape(), name=name, reset_less=True) for name in ("coming", "door")
        )
        has_coming, waiting, enter, swap = (
            Signal(name=name) for name in ("has_coming", "waiting", "enter", "swap")
        )
        # The door is empty, or its row enters. Once more for the rows themselves.
        move, move_rows = Signal(init=1), Signal(init=1, attrs={"keep": 1})
        m.d.comb += rows.o.ready.eq(~has_coming | move)
        with m.If(rows.o.ready):
            m.d.sync += has_coming.eq(rows.o.valid)
        with m.If(~has_coming | move_rows):
            m.d.sync += coming.eq(given)
        with m.If(move_rows):
            m.d.sync += door.eq(coming)
        head, following = door.tag, coming.tag

        layout = row_tag(self.config)
        entering = Signal(layout)
        for name, _ in head.shape():
            if name in layout.members:
                m.d.comb += entering[name].eq(head[name])
        distance = Accumulator.hazard_distance
        recent = [(waiting & head.write, head.address)]  # by age
        tag = entering
        # The accumulator takes the tag `lead` cycles before the sums.
        delay = self.array.latency - Accumulator.lead
        if delay == 0:
            m.d.comb += accumulator.tag.eq(tag)
        for stage in range(1, max(delay, distance - 3) + 1):
            tag = delayed_tag(m, tag, f"tag_{stage}")
            if stage < distance - 2:
                recent.append((tag.valid & tag.write, tag.address))
            if stage == delay:
                m.d.comb += accumulator.tag.eq(tag)

        # The row in `coming` reads what is written by the one at the door, or by one that entered
        # hits[age] cycles ago. Looked at when it comes there, and followed while it waits.
        hits = Signal(distance - 1)
        same = [
            writes & given.tag.read & (address == given.tag.address)
            for writes, address in [(has_coming & following.write, following.address), *recent]
        ]
        none = Const(0, 1)
        with m.If(rows.o.ready):
            m.d.sync += hits.eq(Mux(move, Cat(*same), Cat(same[1], none, *same[2:])))
        with m.Else():
            m.d.sync += hits.eq(Cat(hits[0], none, hits[1:]))
        # hazards[i]: the row at the door must wait for more than i cycles.
        hazards = Signal(distance - 1)
        found = Cat(hits[: distance - 1 - i].any() for i in range(distance - 1))
        m.d.sync += hazards.eq(Mux(move, found, hazards >> 1))

        # The mask word at the door.
        mask, mask_valid = Signal(self.config.columns, reset_less=True), Signal()
        mask_taken = enter & head.masked & head.last_of_tile
        m.d.comb += masks.o.ready.eq(~mask_valid | mask_taken)
        with m.If(masks.o.ready):
            m.d.sync += [mask_valid.eq(masks.o.valid), mask.eq(masks.o.payload.data)]

        # The next cycle.
        will_wait, may_enter, will_enter, will_swap = (
            Signal(name=name) for name in ("will_wait", "may_enter", "will_enter", "will_swap")
        )
        first = Mux(move, following.first, head.first)
        masked = Mux(move, following.masked, head.masked)
        has_mask = masks.o.valid | (mask_valid & ~mask_taken)
        m.d.comb += [
            will_wait.eq(~move | has_coming),
            may_enter.eq(will_wait & ~Mux(move, found[0], hazards[1]) & ~(masked & ~has_mask)),
            will_enter.eq(may_enter & ~(first & ~weights.will_be_ready)),
            will_swap.eq(may_enter & first & weights.will_be_ready),
            weights.will_swap.eq(will_swap),
            entering.valid.eq(enter),
            entering.keep.eq(Mux(head.masked, mask, ~0)),
        ]
        will_move = ~will_wait | will_enter
        m.d.sync += [
            waiting.eq(will_wait),
            enter.eq(will_enter),
            swap.eq(will_swap),
            move.eq(will_move),
            move_rows.eq(will_move),
        ]

        # --- data path ----------------------------------------------------------------------------
        m.d.comb += [
            *(array.activation[i].eq(door.data[i]) for i in range(len(self.activation))),
            array.is_unsigned.eq(head.is_unsigned),
            array.is_sparse.eq(head.is_sparse),
            array.swap.eq(swap),
            array.entry.eq(weights.o),
            array.entry_valid.eq(weights.o_valid),
            maxima.tag.eq(accumulator.result_tag),
            maxima.counts.eq(accumulator.counts),
        ]
        if self.config.decoder:
            m.d.comb += [array.is_high.eq(enter & head.is_high), array.is_low.eq(head.is_low)]
        if self.config.prune:
            m.d.comb += array.rounds.eq(head.rounds)
        if self.config.scales:
            # Those of a tile are taken a cycle before the sums of its first row need them.
            array_scales = Signal(group_scales(self.config), reset_less=True)
            first = DelayLine(m, swap & head.is_scaled, "first_scaled", reset=True)
            take = first[array.scales_lead - 1]
            m.d.comb += [
                array.is_scaled.eq(head.is_scaled),
                array.scales.eq(array_scales),
                weights.o_scales.ready.eq(take),
            ]
            with m.If(take):
                m.d.sync += array_scales.eq(weights.o_scales.payload)
        for c in range(self.config.columns):
            m.d.comb += [
                accumulator.psum[c].eq(array.psum[c]),
                maxima.value[c].eq(accumulator.result[c]),
            ]

        if self.config.sleep:
            self._count(m, head, enter, swap)
            m.d.comb += [
                busy["streams"].eq(self._streams_move(will_swap) | self.i_halt),
                busy["array"].eq(enter | swap | weights.o_valid | self.i_halt),
                busy["sums"].eq(accumulator.tag.valid | self.i_reading | self.i_halt),
            ]

        # --- status -------------------------------------------------------------------------------
        in_flight = Signal(IN_FLIGHT_BITS)
        m.d.sync += in_flight.eq(in_flight + rows.started - maxima.done)
        m.d.comb += [
            self.status.started.eq(rows.started),
            self.status.done.eq(maxima.done),
            self.status.busy.eq((in_flight != 0) | weights.busy | weights.tile_ready),
        ]
        # The weight loader may be ahead, so its command is never the older one.
        for part in (weights, masks, rows):
            with m.If(part.error.valid):
                m.d.comb += self.status.error.eq(part.error)
        with m.If(enter):
            m.d.comb += self.state.eq(MatrixState.BUSY)
        with m.Elif(waiting & head.first & ~weights.tile_ready):
            m.d.comb += self.state.eq(MatrixState.WEIGHTS)
        with m.Elif(rows.active | rows.pending | has_coming | waiting | self.i_stream.valid):
            m.d.comb += self.state.eq(MatrixState.ACTIVATIONS)
        with m.Else():
            m.d.comb += self.state.eq(MatrixState.IDLE)
        return m

    def _resting(self, m: Module, platform: Any, busy: Mapping[str, Signal]) -> Gates:
        """With `sleep`, what puts parts on a clock that stops when they are not busy, by name."""
        if not self.config.sleep:
            return dict.fromkeys(busy, lambda part: part)
        linger = {
            "streams": SETTLING,
            "array": self.array.latency + 2,
            "sums": Accumulator.lead + self.maxima.latency + 2,
        }
        return {
            name: gated_clock(
                m,
                platform,
                name,
                busy=busy[name],
                linger=linger[name],
                asleep=self.activity[f"asleep_{name}"],
            )
            for name in busy
        }

    def _streams_move(self, will_swap: Signal) -> Value:
        """A command, a word, a row or a mask goes from one place to another, or may."""
        ports = (self.weight, self.mask, *self.activation)
        streams = [self.i_weights, self.i_stream, self.rows.o, self.masks.o]
        if self.config.scales:
            streams.append(self.weights.o_scales)
        moves = [port.valid | port.data_valid for port in ports]
        moves += [stream.valid & stream.ready for stream in streams]
        return Cat(*moves, self.weights.o_valid, will_swap).any()

    def _count(self, m: Module, head: data.View, enter: Signal, swap: Signal) -> None:
        """Activity of this unit, but for its sleep. head: tag of the row at the door."""
        c, tag = self.config, self.accumulator.tag
        scaled = head.is_scaled if c.scales else Const(0, 1)
        sparse, int4 = head.is_sparse, head.is_int4 & ~scaled
        halves = head.is_high | head.is_low if c.decoder else 0
        for name, event in {
            "rows_int8": enter & ~sparse & ~int4 & ~scaled,
            "rows_int4": enter & ~sparse & int4,
            "rows_sparse_int8": enter & sparse & ~int4,
            "rows_sparse_int4": enter & sparse & int4,
            "rows_scaled": enter & scaled,
            "rows_of_halves": enter & halves,
            "idle_array": ~(enter | self.weights.o_valid),
            "tiles": swap,
            "weight_entries": self.weights.o_valid,
            "accumulator_read_matrix": tag.valid & tag.read,
            "accumulator_write_matrix": tag.valid & tag.write,
        }.items():
            m.d.comb += self.activity[name].eq(event)
