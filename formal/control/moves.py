"""`hw/control/moves.py`: offsets that registers move, and predicates, by their definitions.

Registers may hold anything.
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from amaranth import Module, Mux, Signal, signed
from amaranth.lib.data import View

from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Induction, Proof
from hw.config import AcceleratorConfig, get_config
from hw.control.legality import commands_of
from hw.control.moves import LIMIT_BITS, MOVED, Moves
from hw.control.register_file import RegisterFile
from hw.dma.transfer import pitch
from hw.interfaces import memory_layout
from hw.isa import NO_LIMIT, REGISTER_BITS, Memory, Opcode

__all__ = ["PROOFS"]


class AnyRegisters(RegisterFile):
    """Ports without anything behind them."""

    def elaborate(self, platform):
        return Module()


def moves(config: AcceleratorConfig) -> Model:
    model = Model()
    m = model.m
    with patch("hw.control.moves.RegisterFile", AnyRegisters):
        unit = model.unit(Moves(config))
    model.drive_signals(word=unit.i_word)
    register, predicate = model.inside(unit).file.o_value
    model.drive_signals(register=register, predicate=predicate)

    def later(value):
        return model.past(model.past(value))

    ran = later(1)
    word, step, left = later(unit.i_word), later(register), later(predicate)
    header = View(memory_layout(Opcode.HALT), word)
    moved = View(memory_layout(Opcode.LOAD), word)
    transfer = (header.opcode == Opcode.LOAD) | (header.opcode == Opcode.STORE)
    offset = Signal(64)
    with m.Switch(moved.memory):
        for memory in Memory:
            if memory:
                with m.Case(memory):
                    m.d.comb += offset.eq(moved.offset + step * pitch(config, memory))
    known = (moved.memory != Memory.NONE) & (moved.memory <= max(Memory))
    beyond = (1 << 32) - config.bus_bytes
    expected = Mux(offset < 1 << 32, offset, beyond)
    model.prove("offset", ~(ran & transfer & known) | (unit.o.offset == expected))
    beat = config.bus_bytes - 1
    aligned = (moved.offset & beat) == 0
    model.prove("aligned", ~(ran & transfer & known & aligned) | ((unit.o.offset & beat) == 0))

    commands = commands_of(config)
    for opcode in (opcode for opcode in commands if MOVED.get(opcode) == "limit"):
        view = View(memory_layout(opcode), word)
        total = Signal(signed(40), name=f"limit_{opcode.name}")
        m.d.comb += total.eq(view.limit + step)
        same = unit.o.limit == Mux(total > NO_LIMIT, NO_LIMIT, total)
        model.prove(f"limit_{opcode.name.lower()}", ~(ran & (header.opcode == opcode)) | same)

    limit, last, fair = Signal(signed(LIMIT_BITS)), Signal(13), Signal(init=1)
    with m.Switch(header.opcode):
        for opcode, spec in commands.items():
            view, names = View(memory_layout(opcode), word), {item.name for item in spec.fields}
            with m.Case(opcode):
                if "limit" in names:
                    m.d.comb += limit.eq(view.limit)
                if "causal" in names:
                    rows = Mux(view.period == 0, view.rows, view.period)
                    m.d.comb += [last.eq(Mux(view.causal, rows - 1, 0)), fair.eq(rows != 0)]
    rest = Signal(signed(REGISTER_BITS + 16))
    m.d.comb += rest.eq(limit + last.as_signed() + left)
    drops = (header.predicate != 0) & (rest <= 0)
    model.prove("dropped", ~(ran & fair) | (unit.o_dropped == drops))
    return model


HW = "hw.control.moves"
MUTANTS = (
    Mutant("offset", HW, "m.d.sync += step.eq(register << shift)", "pass"),
    Mutant("offset", HW, "total[OFFSET_BITS]", "total[OFFSET_BITS + 1]"),
    Mutant("aligned", HW, "(1 << OFFSET_BITS) - self._config.bus_bytes", "(1 << OFFSET_BITS) - 1"),
    Mutant("aligned", HW, "pitches = {item: exact_log2", "pitches = {item: -2 + exact_log2"),
    Mutant("limit_gemm", HW, "total[LIMIT_BITS - 1 :]", "total[LIMIT_BITS:]"),
    Mutant("limit_sparse_gemm", HW, "(total >= 0) & total", "total"),
    Mutant("limit_scaled_gemm", HW, "self.o.limit.eq(NO_LIMIT)", "self.o.limit.eq(NO_LIMIT - 1)"),
    Mutant("limit_low_gemm", HW, "total.eq(start + step)", "total.eq(start)"),
    Mutant("limit_softmax", HW, "total.eq(start + step)", "total.eq(start - step)"),
    Mutant("dropped", HW, "limit + span - 2", "limit + span - 1"),
    Mutant("dropped", HW, "conditional_2 & (rest < 0)", "rest < 0"),
    Mutant("dropped", HW, "view.period == 0", "view.period != 0"),
)

PROOFS = (
    Proof(
        "control.moves",
        {"base+prune": partial(moves, get_config("base+prune"))},
        Induction(3),
        MUTANTS,
        cycles=4,
    ),
)
