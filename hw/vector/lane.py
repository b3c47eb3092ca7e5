"""Data path of one vector lane."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.isa import MID_BITS, Function
from hw.memory.scratchpad import Scratchpad
from hw.softmax.exp2 import FINE_BITS, OCTAVE_BITS, SoftmaxLane
from hw.vector.affine import TERM_BITS, Affine, Param, Record, saturated
from hw.vector.gelu import Activation

__all__ = ["Lane", "Stage", "lane_control"]


class Stage:
    """Pipeline stages of the vector unit: when a group of values stands where.

    A group issued in cycle t stands at stage k in cycle t + k.
    """

    READ = 1  # addresses of residual and first-stage parameters
    MEMORY = READ + Scratchpad.latency  # 5: they arrive from memory
    AHEAD = MEMORY - 1  # what was read ahead arrives: accumulator words and records of rows
    AHEAD_LAG = 1 + AHEAD  # from the cycle in which the sequencer takes it
    FIRST = MEMORY + 1  # scores of the softmax lane
    FUNCTION = MEMORY + Affine.latency  # 10
    OCTAVE = FIRST + 2
    VALID = FIRST + 3
    NARROW = FUNCTION + Activation.latency  # 15: results of functions, to INT16
    ADD = NARROW + 1  # 16: residual addition; second-stage parameters arrive
    LATE_READ = ADD - Scratchpad.latency  # 12: their addresses
    SECOND = ADD + 1  # 17: operands of the second affine stage are in its registers
    TERM = SECOND + 1  # 18: values for row sums
    WRITE = ADD + Affine.latency  # 21: results


assert Stage.FIRST + SoftmaxLane.latency == Stage.NARROW

_CONTROL = {
    "valid": Out(1).array(Stage.WRITE + 1),  # k: stage k holds a group
    "adding": Out(1).array(Stage.ADD),  # k: and it needs its residual word
    "plain": Out(1).array(Stage.ADD),  # k: and it is no softmax group
    "softmax": Out(1).array(Stage.ADD),  # k: and it is a softmax group
    "wrap": Out(1),  # at WRITE - 1: the INT8 result wraps
    "from_residual": Out(1),  # at MEMORY
    "per_row": Out(1),  # at MEMORY
    "res_shift": Out(4),  # at FIRST
    "score_shift": Out(5),  # at FIRST
    "octave": Out(signed(OCTAVE_BITS)),  # at OCTAVE
    "function": Out(Function),  # at FUNCTION
    "add_residual": Out(1),  # at ADD
    "is_softmax": Out(1),  # at ADD
    "gain": Out(1),  # at ADD: the INT16 result goes through the gain stage
    "two_stage": Out(1),  # at ADD
    "gain_result": Out(1),  # at WRITE
}

_DECODER_CONTROL = {
    "gated": Out(1),  # at ADD
    "rotate": Out(1).array(3),  # k: stage NARROW + k holds a group that is rotated
    "wide": Out(1),  # at WRITE - 1: the result has 16 bits
}
"""With the option `decoder`."""


def lane_control(config: AcceleratorConfig) -> wiring.Signature:
    """Control of all lanes: each member at the stage where it is used."""
    return wiring.Signature({**_CONTROL, **(_DECODER_CONTROL if config.decoder else {})})


class Lane(wiring.Component):
    """From operand to INT8 and INT16 result, for all commands.

    ```
    h    = sat18(affine(x, p))                     x: accumulator or residual, p: channel or row
    h    = function(h)                             VECTOR; none otherwise
    h16  = sat16(h) or sat16(sat16(h) + round(residual, res_shift))
    byte = sat8(affine(h or h16, param1)) or sat8 of the value itself, or the low 8 bits of either;
           softmax: its weight
    word = h16 or sat16(affine(h, gain))
    ```
    With the option `decoder`, in place of the second stage:
    ```
    byte = sat8((gate * h16 + offset) >> shift)                      gate: h of the group before
    byte = sat8((h16 * cosine -+ sine * other + offset) >> shift)    other: h16 of the next lane
    ```
    and any result but those of softmax may be wide. The product with the sine is made a stage ahead
    of the others, so that it comes with the offset.

    Values without a second stage pass it as `(x * 1 + 0) >> 0`, a softmax weight as the signed
    byte with the same bits: so every command takes the same time and results stay in order.

    Three multipliers: first stage, second stage, and one that makes the NORM gain, the square for
    the statistics or the product with the sine, plus the small one of GELU.

    Latency: `Stage.WRITE - Stage.MEMORY` cycles from memory data to results. Throughput: one value
    a cycle. Flow control: none; every stage moves when it holds a group.

    Parameters
    ----------
    odd: the lane is the second one of a pair that is rotated.

    Members
    -------
    acc, residual, record: operands, at MEMORY. param0: at MEMORY, as gain at ADD. param1: at ADD.
    key: this lane's column is below the limit, at VALID. control: see `lane_control`.
    term, square: the value for the statistics and its square, at TERM. fine: softmax: the finer
        value for the row sum, at NARROW.
    o_byte, o_word: results, at WRITE. o_high: of a wide one, the high byte and the bit below it.
    o_h16, other: what the lanes of a pair tell each other, at NARROW.
    o_angle: the residual word: of the first lane the cosine, at ADD, of the other one the sine, at
        NARROW. cosine, sine: those of the pair, there.
    """

    def __init__(self, config: AcceleratorConfig, *, odd: bool):
        self.config = config
        self.odd = odd
        decoder = {
            "o_high": Out(9),
            "o_h16": Out(signed(16)),
            "other": In(signed(16)),
            "o_angle": Out(signed(16)),
            "cosine": In(signed(16)),
            "sine": In(signed(16)),
        }
        super().__init__(
            {
                "acc": In(signed(32)),
                "residual": In(signed(16)),
                "record": In(Record),
                "param0": In(Param),
                "param1": In(Param),
                "key": In(1),
                "control": In(lane_control(config)),
                "term": Out(signed(16)),
                "square": Out(unsigned(31)),
                "fine": Out(FINE_BITS),
                "o_byte": Out(8),
                "o_word": Out(signed(16)),
                **(decoder if config.decoder else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        control, decoder = self.control, self.config.decoder
        valid = control.valid
        m.submodules.first = first = Affine(x_bits=32, result_bits=MID_BITS)
        m.submodules.activation = activation = Activation(silu=decoder)
        m.submodules.softmax = softmax = SoftmaxLane()
        m.submodules.gain = gain = Affine(x_bits=MID_BITS, result_bits=16)
        sign = (1 if self.odd else -1) if decoder else 0
        m.submodules.second = second = Affine(
            x_bits=MID_BITS, result_bits=8, wide=decoder, term=sign
        )

        # Stage MEMORY: operands.
        x = Signal(signed(32))
        param = Signal(Record)
        score = Signal(signed(32), reset_less=True)
        residual = Signal(signed(16), name="residual_2", reset_less=True)
        m.d.comb += x.eq(Mux(control.from_residual, self.residual, self.acc))
        for name in Record.members:
            m.d.comb += param[name].eq(Mux(control.per_row, self.record[name], self.param0[name]))
        with m.If(control.softmax[Stage.MEMORY]):
            m.d.sync += score.eq(self.acc)
        with m.If(control.adding[Stage.MEMORY]):
            m.d.sync += residual.eq(self.residual)

        # Stages MEMORY to ADD: first affine stage and function, beside them the softmax lane and
        # the residual word, which waits for the addition.
        m.d.comb += [
            *(first.enable[k].eq(control.plain[Stage.MEMORY + k]) for k in range(first.latency)),
            first.x.eq(x),
            first.mul.eq(param.mul),
            first.offset.eq(param.offset),
            first.shift.eq(param.shift),
            *(
                activation.enable[k].eq(control.plain[Stage.FUNCTION + k])
                for k in range(activation.latency)
            ),
            activation.i.eq(first.o),
            activation.function.eq(control.function),
            *(
                softmax.enable[k].eq(control.softmax[Stage.FIRST + k])
                for k in range(softmax.latency)
            ),
            softmax.score.eq(score),
            softmax.score_shift.eq(control.score_shift),
            softmax.octave.eq(control.octave),
            softmax.valid.eq(self.key),
        ]
        guarded = Signal(signed(17))
        rounded = Signal(signed(16), name="residual_3", reset_less=True)
        m.d.comb += guarded.eq(Cat(Const(0, 1), residual).as_signed() >> control.res_shift)
        with m.If(control.adding[Stage.FIRST]):
            m.d.sync += rounded.eq(guarded[1:].as_signed() + guarded[0])
        at_narrow = rounded
        for stage in range(Stage.FIRST + 1, Stage.ADD):
            moved = Signal(signed(16), name=f"residual_{stage + 1}", reset_less=True)
            with m.If(control.adding[stage]):
                m.d.sync += moved.eq(rounded)
            at_narrow, rounded = rounded, moved

        # Stage NARROW.
        narrow = saturated(activation.o, 16)
        h18 = Signal(signed(MID_BITS), name="h18", reset_less=True)
        plain = Signal(signed(16), name="h16_plain", reset_less=True)
        weight = Signal(8, name="weight", reset_less=True)
        with m.If(valid[Stage.NARROW]):
            m.d.sync += [
                h18.eq(activation.o),
                plain.eq(narrow),
                weight.eq(softmax.o_weight),
            ]

        # Stage ADD: residual addition, and the choice of what goes on.
        h16 = Signal(signed(16))
        value = Signal(signed(MID_BITS))
        second_param = Signal(Record)
        m.d.comb += h16.eq(Mux(control.add_residual, saturated(plain + rounded, 16), plain))
        with m.If(control.is_softmax):
            m.d.comb += value.eq(weight.as_signed())
        with m.Else():
            m.d.comb += value.eq(Mux(control.add_residual, h16, h18))
        with m.If(control.two_stage):
            for name in Record.members:
                m.d.comb += second_param[name].eq(self.param1[name])
        with m.Else():
            m.d.comb += second_param.mul.eq(1)
        gain_x, gain_mul = Mux(control.gain, h18, h16), Mux(control.gain, self.param0.mul, h16)
        if decoder:
            gate = Signal(signed(MID_BITS), reset_less=True)
            with m.If(control.gated):
                m.d.comb += [value.eq(gate), second_param.mul.eq(plain)]
                m.d.sync += gate.eq(h18)  # of the group before: between groups h18 stands still
            with m.If(control.rotate[1]):
                m.d.comb += [value.eq(plain), second_param.mul.eq(self.cosine)]
            # A cycle lies between commands, so no group at ADD needs the multiplier now.
            gain_x = Mux(control.rotate[0], self.other, gain_x)
            gain_mul = Mux(control.rotate[0], self.sine, gain_mul)
            turned = gain.product[:TERM_BITS].as_signed()
            m.d.comb += [
                self.o_h16.eq(narrow),
                self.o_angle.eq(at_narrow if self.odd else rounded),
                self.o_high.eq(second.o[7:]),
                second.wide.eq(control.wide),
                second.term.eq(Mux(control.rotate[2], turned, 0)),
            ]

        # Stages ADD to WRITE: second affine stage; gain or square; the plain INT16 value.
        m.d.comb += [
            *(gain.enable[k].eq(valid[Stage.ADD + k]) for k in range(gain.latency)),
            gain.x.eq(gain_x),
            gain.mul.eq(gain_mul),
            gain.offset.eq(self.param0.offset),
            gain.shift.eq(self.param0.shift),
            *(second.enable[k].eq(valid[Stage.ADD + k]) for k in range(second.latency)),
            second.wrap.eq(control.wrap),
            second.x.eq(value),
            second.mul.eq(second_param.mul),
            second.offset.eq(second_param.offset),
            second.shift.eq(second_param.shift),
        ]
        words: list[Any] = [h16]
        for stage in range(Stage.ADD, Stage.WRITE):
            word = Signal(signed(16), name=f"word_{stage + 1}", reset_less=True)
            with m.If(valid[stage]):
                m.d.sync += word.eq(words[-1])
            words.append(word)
        m.d.comb += [
            self.fine.eq(softmax.o_fine),
            self.term.eq(words[Stage.TERM - Stage.ADD]),
            self.square.eq(gain.product),
            self.o_byte.eq(second.o[:8]),
            self.o_word.eq(Mux(control.gain_result, gain.o, words[-1])),
        ]
        return m
