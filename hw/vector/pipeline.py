"""The lanes, their control by stage, and the memory ports at the stages that use them."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import ReadPort, WritePort
from hw.isa import SQUARES_BITS, SUM_BITS, Memory
from hw.memory.banks import BANK_BITS, bank_of, memory_banks, memory_words
from hw.softmax.state import SHIFT_BITS
from hw.vector.affine import Param, Record
from hw.vector.command import is_vector
from hw.vector.lane import Lane, Stage
from hw.vector.select import select_group
from hw.vector.sequencer import group_layout
from hw.vector.statistics import RowSums
from hw.vector.writer import WordWriter

__all__ = ["LanePipeline", "RowUpdate"]

RowUpdate = data.StructLayout(
    {
        "early_slot": 10,  # at TERM - 2: of L
        "slot": 10,  # at TERM: of SUM and SQUARES
        "first": 1,  # at TERM + 1: do not add to what is there
        "shift": SHIFT_BITS,  # at TERM - 1: rescale of L
        "total": unsigned(SUM_BITS),  # at TERM + 2
        "squares": unsigned(SQUARES_BITS),  # at TERM + 2
        "statistics": 1,  # at WRITE: update SUM and SQUARES
        "softmax": 1,  # at WRITE: update L
    }
)
"""End of a row, each member at its stage; TERM is stage 0 of the row memories."""

assert Stage.WRITE == Stage.TERM + 3 and Stage.NARROW == Stage.TERM - RowSums.fine_lead


class LanePipeline(wiring.Component):
    """A group that enters in cycle t is written in cycle t + `latency`, whatever its command.

    Memory ports by stage: residual and PARAM0 (VECTOR) at `Stage.READ`; PARAM0 (NORM) and PARAM1 at
    `Stage.LATE_READ`; all writes at `Stage.WRITE`, INT8 results a word at a time with its last
    group. A VECTOR group must not enter in the cycle after one with `o_hold`: a NORM group uses
    PARAM0 then. These ports have the highest priority at their memories and are always ready.

    Throughput: a group a cycle. Flow control: none. Errors travel with their group, so that they
    are reported in the order of the commands; a group with an error writes nothing.

    Members
    -------
    i, i_valid: the group of this cycle. acc, acc_error, record: of the group at `Stage.AHEAD`.
    residual_read, param0, param1, activation_write, weight_write, residual_write: memories.
    update: row sums for the row state. o_hold: see above.
    last: the last group of a command is at its end, by whatever end. done: it is being written.
        error: a group with an error is. i_halt: write nothing from the next cycle on.
    select: a group of SELECT is at its end, without an error; its command's end is not `last`.
    select_group, select_acc: the group, until the next one of any command.
    """

    latency = Stage.WRITE

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        lanes = config.lanes
        selection = {
            "select": Out(1),
            "select_group": Out(select_group(config)),
            "select_acc": Out(32 * lanes),
        }
        super().__init__(
            {
                "i": In(group_layout(config)),
                "acc": In(32 * lanes),
                "acc_error": In(1),
                "record": In(Record),
                "i_valid": In(1),
                "residual_read": Out(ReadPort(16 * lanes)),
                "param0": Out(ReadPort(64 * lanes)),
                "param1": Out(ReadPort(64 * lanes)),
                "activation_write": Out(WritePort(8 * config.rows, config.groups_per_row_panel)),
                "weight_write": Out(
                    WritePort(8 * config.weight_bytes, config.weight_bytes // lanes)
                ),
                "residual_write": Out(WritePort(16 * lanes)),
                "update": Out(RowUpdate),
                "o_hold": Out(1),
                "last": Out(1),
                "done": Out(1),
                "error": Out(1),
                "i_halt": In(1),
                **(selection if config.decoder else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, group = self.config, self.i
        lanes = [Lane(config, odd=bool(v % 2)) for v in range(config.lanes)]
        line = {name: DelayLine(m, group[name], name) for name in group.shape().members}
        octave = DelayLine(m, self.record.offset, "octave", first=Stage.AHEAD)
        row_shift = DelayLine(m, self.record.shift, "row_shift", first=Stage.AHEAD)
        valid = DelayLine(m, self.i_valid, "valid", reset=True)
        read, late, before, write = Stage.READ, Stage.LATE_READ, Stage.WRITE - 1, Stage.WRITE
        # At `before`: a group is at its end, and has no error; at `write`: it has one.
        going, good, bad = Signal(), Signal(), Signal()

        def bank(memory: Memory, address: str, stage: int) -> Signal:
            """Of an address that is used at `stage`, as a register."""
            register = Signal(
                BANK_BITS, name=f"bank_{memory.name.lower()}_{stage}", reset_less=True
            )
            banks = memory_banks(config, memory)
            m.d.sync += register.eq(bank_of(line[address][stage - 1], banks))
            return register

        def beyond(memory: Memory, address: str, stage: int) -> Signal:
            """Whether an address that is used at `stage` is beyond its memory, as a register."""
            register = Signal(name=f"beyond_{memory.name.lower()}_{stage}", reset_less=True)
            m.d.sync += register.eq(line[address][stage - 1] >= memory_words(config, memory))
            return register

        # --- reads --------------------------------------------------------------------------------
        vector = DelayLine(m, is_vector(group), "vector")
        reads_early = valid[read] & vector[read]
        late_gain = valid[late] & line["read_gain"][late]
        next_late = late - read - 1  # where such a group is when one is issued that reads with it
        m.d.comb += [
            self.o_hold.eq(valid[next_late] & line["read_gain"][next_late]),
            self.residual_read.valid.eq(valid[read] & line["read_residual"][read]),
            self.residual_read.addr.eq(line["res_read_address"][read]),
            self.residual_read.bank.eq(bank(Memory.RESIDUAL, "res_read_address", read)),
            self.param0.valid.eq(late_gain | reads_early),
            self.param0.addr.eq(
                Mux(late_gain, line["param0_address"][late], line["param0_address"][read])
            ),
            self.param1.valid.eq(valid[late] & line["read_param1"][late]),
            self.param1.addr.eq(line["param1_address"][late]),
        ]

        # --- errors -------------------------------------------------------------------------------
        early_errors = Cat(
            line["error"][read],
            line["read_residual"][read] & beyond(Memory.RESIDUAL, "res_read_address", read),
            vector[read] & beyond(Memory.PARAM0, "param0_address", read),
        )
        early_errors = DelayLine(m, early_errors, "early_errors", first=read)
        early = DelayLine(m, early_errors[read + 1].any(), "early", first=read + 1)
        ahead = DelayLine(m, early[Stage.AHEAD] | self.acc_error, "ahead", first=Stage.AHEAD)
        late_error = (
            ahead[late]
            | (line["read_gain"][late] & beyond(Memory.PARAM0, "param0_address", late))
            | (line["read_param1"][late] & beyond(Memory.PARAM1, "param1_address", late))
        )
        failed = DelayLine(m, late_error, "failed", first=late)

        # --- lanes --------------------------------------------------------------------------------
        m.submodules.sums = sums = RowSums(len(lanes))
        acc = Signal.like(self.acc, reset_less=True)
        record = Signal(Record, reset_less=True)
        with m.If(valid[Stage.AHEAD]):
            m.d.sync += [acc.eq(self.acc), record.eq(self.record)]
        adds = group.add_residual | group.rotate if config.decoder else group.add_residual
        adding = DelayLine(m, self.i_valid & adds, "adding")
        softmax = DelayLine(m, self.i_valid & group.softmax, "is_softmax")
        plain = DelayLine(m, self.i_valid & ~group.softmax, "plain")
        per_row = DelayLine(m, group.norm | group.scale, "per_row")
        for v, lane in enumerate(lanes):
            m.submodules[f"lane_{v}"] = lane
            control = lane.control
            m.d.comb += [
                *(control.valid[k].eq(valid[k]) for k in range(write + 1)),
                *(control.adding[k].eq(adding[k]) for k in range(Stage.ADD)),
                *(control.plain[k].eq(plain[k]) for k in range(Stage.ADD)),
                *(control.softmax[k].eq(softmax[k]) for k in range(Stage.ADD)),
                control.wrap.eq(line["wrap"][before]),
                control.from_residual.eq(line["from_residual"][Stage.MEMORY]),
                control.per_row.eq(per_row[Stage.MEMORY]),
                control.res_shift.eq(line["res_shift"][Stage.FIRST]),
                control.score_shift.eq(line["score_shift"][Stage.FIRST]),
                control.octave.eq(octave[Stage.OCTAVE]),
                control.function.eq(line["function"][Stage.FUNCTION]),
                control.add_residual.eq(line["add_residual"][Stage.ADD]),
                control.is_softmax.eq(line["softmax"][Stage.ADD]),
                control.gain.eq(line["read_gain"][Stage.ADD]),
                control.two_stage.eq(line["two_stage"][Stage.ADD]),
                control.gain_result.eq(line["read_gain"][write]),
                lane.acc.eq(acc.word_select(v, 32).as_signed()),
                lane.residual.eq(self.residual_read.data.word_select(v, 16).as_signed()),
                lane.record.eq(record),
                lane.param0.eq(data.View(Param, self.param0.data.word_select(v, 64))),
                lane.param1.eq(data.View(Param, self.param1.data.word_select(v, 64))),
                lane.key.eq(v < line["keys"][Stage.VALID]),
                sums.fine[v].eq(lane.fine),
                sums.term[v].eq(lane.term),
                sums.square[v].eq(lane.square),
            ]

        if config.decoder:
            rotate = DelayLine(m, self.i_valid & group.rotate, "rotates")
            for lane in lanes:
                m.d.comb += [
                    lane.control.wide.eq(line["wide"][before]),
                    lane.control.gated.eq(line["gated"][Stage.ADD]),
                    *(lane.control.rotate[k].eq(rotate[Stage.NARROW + k]) for k in range(3)),
                ]
            for even, odd in zip(lanes[::2], lanes[1::2], strict=True):
                m.d.comb += [even.other.eq(odd.o_h16), odd.other.eq(even.o_h16)]
                for lane in (even, odd):
                    m.d.comb += [lane.cosine.eq(even.o_angle), lane.sine.eq(odd.o_angle)]

        # --- selection ----------------------------------------------------------------------------
        # The latest group stays where it is read ahead: of SELECT, one is issued at a time.
        ends_command = line["last"][before]
        if config.decoder:
            names = {"row": "slot", "address": "res_write_address"}
            latest = [
                self.select_group[name].eq(line[names.get(name, name)][Stage.AHEAD])
                for name in self.select_group.shape().members
            ]
            with m.If(valid[Stage.AHEAD]):
                m.d.sync += latest
            ends_command &= ~line["select"][before]
            m.d.comb += self.select_acc.eq(acc)
            m.d.sync += self.select.eq(good & line["select"][before])

        # --- row sums -----------------------------------------------------------------------------
        term = Stage.TERM
        m.d.comb += [
            sums.i_valid.eq(valid[term]),
            sums.fine_valid.eq(valid[Stage.NARROW] & line["softmax"][Stage.NARROW]),
            sums.i_softmax.eq(line["softmax"][term + 1]),
            sums.i_first.eq(line["first_of_row"][term + 1]),
            self.update.early_slot.eq(line["slot"][term - 2]),
            self.update.slot.eq(line["slot"][term]),
            self.update.first.eq(line["first"][term + 1]),
            self.update.shift.eq(row_shift[term - 1]),
            self.update.total.eq(sums.total),
            self.update.squares.eq(sums.squares),
        ]

        # --- writes -------------------------------------------------------------------------------
        # What is written is decided a cycle before.
        m.submodules.writer = writer = WordWriter(config)
        for port in ("activation_write", "weight_write"):
            wiring.connect(m, getattr(writer, port), wiring.flipped(getattr(self, port)))
        m.d.comb += [
            writer.dst_address.eq(line["dst_address"][before - 1]),
            writer.granule.eq(line["granule"][before]),
            writer.full.eq(good & line["last_of_word"][before]),
            writer.dst_memory.eq(line["dst_memory"][before]),
            writer.valid.eq(valid[write]),
            *(writer.low[v].eq(lane.o_byte) for v, lane in enumerate(lanes)),
        ]
        if config.decoder:
            m.d.comb += [
                writer.wide.eq(line["wide"][before - 1]),
                writer.i_stop.eq(self.i_halt | self.error),
                *(writer.high[v].eq(lane.o_high) for v, lane in enumerate(lanes)),
            ]
        row_end = good & line["last_of_row"][before]
        m.d.comb += [
            going.eq(valid[before] & ~self.i_halt & ~self.error),
            good.eq(going & ~failed[before]),
            self.residual_write.addr.eq(line["res_write_address"][write]),
            self.residual_write.bank.eq(bank(Memory.RESIDUAL, "res_write_address", write)),
            self.residual_write.data.eq(Cat(lane.o_word for lane in lanes)),
            self.residual_write.mask.eq(1),
            self.done.eq(self.last & ~self.error),
            self.error.eq(
                bad
                | writer.beyond
                | (self.residual_write.valid & beyond(Memory.RESIDUAL, "res_write_address", write))
            ),
        ]
        m.d.sync += [
            self.residual_write.valid.eq(good & line["write_residual"][before]),
            self.update.statistics.eq(row_end & line["statistics"][before]),
            self.update.softmax.eq(row_end & line["softmax"][before]),
            self.last.eq(going & ends_command),
            bad.eq(going & failed[before]),
        ]
        return m
