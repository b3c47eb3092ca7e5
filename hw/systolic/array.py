"""The systolic array: R x C multipliers, skew, and the paths by which weights enter."""

from __future__ import annotations

from typing import Any

from amaranth import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    Mux,
    Signal,
    Value,
    signed,
    unsigned,
)
from amaranth.hdl import ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.cells.multiplier import Multiplier
from hw.cells.technology import Technology, technology_of
from hw.columns import GROUP, copies, register
from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.sparse.formats import QUAD
from hw.sparse.unpack import group_scales, weight_entry
from hw.systolic.pe import ACTIVATION_BITS, ProcessingPair

__all__ = ["SystolicArray"]

SCALE_BITS = 9
"""Of a scale, which is unsigned, or an offset, as signed numbers."""
OFFSET_SHIFT = 3
"""Octaves by which an offset is coarser than a scale."""


def _drive(m: Module, target: Any, value: Any) -> None:
    """A port's member, or each of its members."""
    if isinstance(value, list):
        m.d.comb += [part.eq(v) for part, v in zip(target, value, strict=True)]
    else:
        m.d.comb += target.eq(value)


class SystolicArray(wiring.Component):
    """Weight-stationary array: `psum[c] = sum over r of activation[r] * W[r][c]`, one row a cycle.

    Rows are built in pairs. Pair p works p cycles after pair 0, so a row of activations is
    skewed by r // 2, is broadcast over all columns, and the sums of all columns leave together.

    Latency: `latency` cycles from the cycle in which a row enters to that in which `psum` holds
    its sums. Throughput: a row a cycle, a weight word a cycle. Flow control: none; a cycle
    without a row computes a sum that nobody takes.

    With `sparse`, a row has 2R activations: pair p chooses from 4p..4p+3, by the indices that
    come with the weights, if `is_sparse`; else it has 2p and 2p + 1 of the first word.

    With `decoder`, activations may be two rows, of high and of low bytes: the sums of the first
    are held, and added 256 times to those of the second, in front of the last register. Other
    cycles may lie between them, but no other row.

    With `scales`, the sums of a row that `is_scaled` become `scale[c] * psum[c] + 8 * offset[c] *
    sum over r of activation[r]`, and low bytes join high ones shifted right by 8, rounded. The sums
    are those of INT4 weights as they are stored: higher bits of others are lost.

    With `prune`, sums of a row that `rounds` are shifted right by 8, rounded, as they are joined.

    Weights: a word by row is broadcast over the rows and captured by row `index`, one of two rows
    by a pair of them; a word by column travels down the array like an activation and is captured
    by column `index` of each pair. `swap`, given with the first row of a tile, travels with that
    row, and makes active the words that entered in earlier cycles. A word that enters with the
    swap belongs to the next tile already: by column it reaches pair p in the cycle of the swap, by
    row it reaches row r after r cycles (a pair of rows p after p), and the swap after r // 2. So
    tiles of W words may follow each other every W cycles without a drain.

    Parameters
    ----------
    config: rows, columns, psum_bits, sum_bits, weight_bytes, sparse, int4, scales, decoder.

    Members
    -------
    activation: R bytes for each word of a row; `is_unsigned` says how to read them.
    is_sparse: this row meets sparse weights. swap: this row is the first of its tile.
    is_high, is_low: a row of high bytes enters, or one of the low bytes that belong to it.
    rounds: this row of low bytes meets low bytes of weights.
    is_scaled: this row meets weights in groups with scales and offsets. scales: those of its tile
    (`group_scales`), `scales_lead` cycles later.
    entry: weights (`weight_entry`); entry_valid: they enter. Words of a tile enter in order, with
    any gaps. psum: C sums.

    Source: the skew by row pairs and the broadcast are those of structured-sparse systolic
    arrays (two rows see four reduction values); the travelling capture replaces the shift chain
    of the classical weight-stationary array, whose smallest tile period is twice as long.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.panels = 2 if config.sparse else 1
        word = data.ArrayLayout(unsigned(8), config.rows)
        members = {
            "activation": In(word).array(self.panels),
            "is_unsigned": In(1),
            "is_sparse": In(1),
            "swap": In(1),
            "entry": In(weight_entry(config)),
            "entry_valid": In(1),
            "psum": Out(signed(config.sum_bits)).array(config.columns),
        }
        if config.decoder:
            members |= {"is_high": In(1), "is_low": In(1)}
        if config.scales:
            members |= {"is_scaled": In(1), "scales": In(group_scales(config))}
        if config.prune:
            members |= {"rounds": In(1)}
        super().__init__(members)

    @property
    def latency(self) -> int:
        """From a row to its sums: those of the last pair, scales and offsets, a register."""
        return self.scales_lead + (2 if self.config.scales else 1)

    @property
    def scales_lead(self) -> int:
        """Input registers and those of the groups, skew to the last pair, the pair."""
        inputs = 3 if self.config.sparse else 2
        return inputs + (self.config.rows // 2 - 1) + ProcessingPair.latency

    def _operands(self, m: Module) -> list[Signal]:
        """Stage 1: the inputs of pair 0, of pair 1, .. as signed numbers, four or two each."""
        rows, sparse = self.config.rows, self.config.sparse
        dense = [self.activation[0][r] for r in range(rows)]
        if sparse:
            both = [self.activation[w][r] for w in range(2) for r in range(rows)]
            chosen = []
            for p in range(rows // 2):
                quad = both[QUAD * p : QUAD * (p + 1)]
                for i in range(2):
                    quad[i] = Mux(self.is_sparse, quad[i], dense[2 * p + i])
                chosen += quad
        else:
            chosen = dense
        result = []
        for i, byte in enumerate(chosen):
            operand = Cat(byte, byte[7] & ~self.is_unsigned).as_signed()
            result.append(register(m, operand, f"operand_{i}"))
        return result

    def _captures(self, m: Module) -> tuple[Signal, Signal]:
        """Stage 1: one-hot row and column that take the registered word.

        Only the word's own direction captures.
        """
        c, entry = self.config, self.entry
        row_position = Signal(c.rows, reset_less=True)
        column_position = Signal(c.columns, reset_less=True)
        row_capture = Signal(c.rows)
        column_capture = Signal(c.columns)
        next_row = Mux(entry.first, 1, row_position << 1)
        if c.int4:
            next_row = Mux(entry.two_rows, Mux(entry.first, 3, row_position << 2), next_row)
        next_column = Mux(entry.first, 1, column_position << 1)
        m.d.sync += [row_capture.eq(0), column_capture.eq(0)]
        with m.If(self.entry_valid):
            m.d.sync += [row_position.eq(next_row), column_position.eq(next_column)]
            with m.If(entry.by_column):
                m.d.sync += column_capture.eq(next_column)
            with m.Else():
                m.d.sync += row_capture.eq(next_row)
        return row_capture, column_capture

    def elaborate(self, platform):
        m = Module()
        if technology_of(platform) is Technology.SIMULATION:
            self._simulated(m)
        else:
            self._portable(m)
        return m

    def _simulated(self, m: Module) -> None:
        """As in array.sv, which `sim.export` adds."""
        c, zero = self.config, Const(0, 1)
        psum = Signal(data.ArrayLayout(signed(32), c.columns))
        m.submodules.array = Instance(
            "weft_systolic_array",
            p_ROWS=c.rows,
            p_COLUMNS=c.columns,
            p_WORD_BYTES=c.weight_bytes,
            p_SPARSE=int(c.sparse),
            p_INT4=int(c.int4),
            p_SCALES=int(c.scales),
            p_DECODER=int(c.decoder),
            p_LATENCY=self.latency,
            i_clk=ClockSignal(),
            i_activation=Cat(*self.activation),
            i_is_unsigned=self.is_unsigned,
            i_is_sparse=self.is_sparse,
            i_swap=self.swap,
            i_is_high=self.is_high if c.decoder else zero,
            i_is_low=self.is_low if c.decoder else zero,
            i_is_scaled=self.is_scaled if c.scales else zero,
            i_rounds=self.rounds if c.prune else zero,
            i_scale=self.scales.scale if c.scales else Const(0, 8 * c.columns),
            i_offset=self.scales.offset if c.scales else Const(0, 8 * c.columns),
            i_entry_valid=self.entry_valid,
            i_entry_first=self.entry.first,
            i_entry_by_column=self.entry.by_column,
            i_entry_two_rows=self.entry.two_rows if c.int4 else zero,
            i_entry_word=self.entry.word,
            i_entry_word_1=self.entry.word_1 if c.int4 else Const(0, 8 * c.columns),
            i_entry_index=self.entry.index if c.sparse else Const(0, 4 * c.columns),
            o_psum=psum,
        )
        m.d.comb += [self.psum[i].eq(psum[i]) for i in range(c.columns)]

    def _portable(self, m: Module) -> None:
        c = self.config
        pairs, columns = c.rows // 2, c.columns

        # Stage 1: input registers, which keep the decision to enter a row off the broadcasts.
        operand = self._operands(m)
        lanes = len(operand) // pairs
        row = [operand[lanes * p + i] for p in range(pairs) for i in range(2)]
        row_capture, column_capture = self._captures(m)
        entry = register(m, self.entry, "entry_register")
        # What travels is delayed by a cycle a pair. Weights follow their indices by a cycle.
        late = 1 if c.sparse else 0
        swaps = [register(m, self.swap, "swap_0")]
        column_captures: list[Any] = [column_capture]
        for p in range(1, pairs + late):
            swaps.append(register(m, swaps[-1], f"swap_{p}"))
            column_captures.append(register(m, column_captures[-1], f"column_capture_{p}"))
        word, row_captures = entry.word, row_capture
        words = [word, entry.word_1 if c.int4 else word]
        if late:
            row_captures = register(m, row_capture, "late_row_capture")
            word = register(m, word, "late_word")
            words = [word, register(m, words[1], "late_word_1") if c.int4 else word]

        # Stage 2 + p: copies for pair p, which works with them a cycle later.
        words = [register(m, word, f"near_word_{j}") for j, word in enumerate(words)]
        index = register(m, entry.index, "near_index") if c.sparse else None
        column_bytes: list[Any] = [word[r].as_signed() for r in range(c.rows)]
        sums: list[ValueLike] = [0] * columns
        for p in range(pairs):
            top, first = 2 * p, lanes * p
            a = operand[first : first + lanes]
            if c.sparse:  # selectors take their time
                a = [register(m, a[j], f"a_{first + j}") for j in range(lanes)]
            broadcast = {
                "a": a,
                "swap": swaps[p + late],
                "column_bytes": column_bytes[top : top + 2],
                "capture_row": [row_captures[r] for r in (top, top + 1)],
            }
            captures = {"capture_column": column_captures[p + late]}
            if c.sparse:
                broadcast["index_swap"] = swaps[p]
                broadcast["index_capture_row"] = [row_capture[r] for r in (top, top + 1)]
                captures["index_capture_column"] = column_captures[p]
            captures = copies(m, captures, f"pair_{p}")
            near: dict[str, Any] = {}
            for column in range(columns):
                if column % GROUP == 0:
                    near = copies(m, broadcast, f"pair_{p}_{column // GROUP}")
                pe = ProcessingPair(c.psum_bits, sparse=c.sparse)
                m.submodules[f"pe_{p}_{column}"] = pe
                inputs = near | {name: capture[column] for name, capture in captures.items()}
                inputs |= {"i_psum": sums[column], "row_byte": [word[column] for word in words]}
                if index is not None:
                    inputs["row_index"] = [part[column] for part in index]
                for name, value in inputs.items():
                    _drive(m, getattr(pe, name), value)
                sums[column] = pe.o_psum
            if p < pairs - 1:
                for i in range(first + lanes, len(operand)):
                    operand[i] = register(m, operand[i], f"operand_{i}_{p + 1}")
                for r in range(top + 2, c.rows):
                    column_bytes[r] = register(m, column_bytes[r], f"column_byte_{r}_{p + 1}")
        if c.scales:
            sums = self._scaled(m, sums, row)
        if c.decoder:
            sums = self._joined(m, sums)
        # A register more, which may lie beside the accumulator.
        for column in range(columns):
            m.d.comb += self.psum[column].eq(register(m, sums[column], f"sum_{column}"))

    def _scaled(self, m: Module, sums: list[ValueLike], row: list[Signal]) -> list[ValueLike]:
        """Sums with the scales and offsets of their groups, where the row `is_scaled`.

        row: its activations, as they are in stage 1.
        """
        c, lead = self.config, self.scales_lead
        parts = [sum(row[i : i + 4]) for i in range(0, c.rows, 4)]
        parts = [register(m, part, f"row_part_{i}") for i, part in enumerate(parts)]
        total = DelayLine(m, register(m, sum(parts), "row_sum_3"), "row_sum", first=3)[lead]
        total = total[: ACTIVATION_BITS + ceil_log2(c.rows)].as_signed()
        scaled = DelayLine(m, self.is_scaled, "is_scaled")[lead]
        result: list[ValueLike] = []
        near: dict[str, Any] = {}
        for column, psum in enumerate(sums):
            if column % GROUP == 0:
                near = copies(m, {"scaled": scaled}, f"scaled_{column // GROUP}")
            narrow = Value.cast(psum)[: c.int4_sum_bits].as_signed()
            products = []
            for name, a, b in (
                ("scale", narrow, self.scales.scale[column]),
                ("offset", total, self.scales.offset[column]),
            ):
                multiplier = Multiplier(len(a), SCALE_BITS, input_registers=False)
                m.submodules[f"{name}_{column}"] = multiplier
                m.d.comb += [multiplier.a.eq(a), multiplier.b.eq(b), multiplier.o_enable.eq(1)]
                products.append(multiplier.o)
            plain = register(m, psum, f"plain_{column}")
            value = Signal(signed(c.sum_bits), name=f"value_{column}")
            both = products[0] + (products[1] << OFFSET_SHIFT)
            m.d.comb += value.eq(Mux(near["scaled"], both, plain))
            result.append(value)
        return result

    def _joined(self, m: Module, sums: list[ValueLike]) -> list[ValueLike]:
        """Sums of low bytes with those of the high bytes in front of them."""
        config = self.config
        rounds: ValueLike = 0
        if config.scales:
            rounds = DelayLine(m, self.is_scaled, "joins_scaled")[self.latency - 2]
        if config.prune:
            rounds |= DelayLine(m, self.rounds, "joins_low")[self.latency - 2]
        high = DelayLine(m, self.is_high, "is_high")[self.latency - 2]
        low = DelayLine(m, self.is_low, "is_low")[self.latency - 2]
        joined: list[ValueLike] = []
        near: dict[str, Any] = {}
        for column, psum in enumerate(sums):
            if column % GROUP == 0:
                near = copies(m, {"high": high, "low": low}, f"sums_{column // GROUP}")
                if config.scales or config.prune:
                    near |= copies(m, {"scaled": rounds}, f"joins_{column // GROUP}")
            held_bits = config.sum_bits if config.scales else config.psum_bits
            held = Signal(signed(held_bits), name=f"held_{column}", reset_less=True)
            with m.If(near["high"]):
                m.d.sync += held.eq(psum)
            total = Signal(signed(config.sum_bits), name=f"joined_{column}")
            m.d.comb += total.eq(psum + Mux(near["low"], held << 8, 0))
            if config.scales or config.prune:
                rounded = (Value.cast(psum) + 128) >> 8
                with m.If(near["low"] & near["scaled"]):
                    m.d.comb += total.eq(rounded + held)
            joined.append(total)
        return joined
