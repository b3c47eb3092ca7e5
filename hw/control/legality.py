"""Which command words a machine executes, and on which unit."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.utils import exact_log2

from hw.config import AcceleratorConfig
from hw.control.scoreboard import UNITS
from hw.interfaces import memory_layout
from hw.isa import (
    COMMANDS,
    HEADER,
    MATRIX_OPCODES,
    PRUNE_OPCODES,
    WAIT_SLOTS,
    CommandSpec,
    Function,
    Memory,
    Opcode,
    Unit,
)

__all__ = ["commands_of", "legal_forms", "target_units"]

DECODER_OPCODES = (Opcode.SELECT, Opcode.ADD)
DECODER_FIELDS = ("gated", "rotate", "same_param0", "same_param1", "rms")
"""What only a configuration with `decoder` has, besides all fields of the header."""


def commands_of(config: AcceleratorConfig) -> dict[Opcode, CommandSpec]:
    """The commands that dispatch looks at: of machines without `prune` nothing of that is left."""
    absent = () if config.prune else PRUNE_OPCODES
    return {opcode: spec for opcode, spec in COMMANDS.items() if opcode not in absent}


def legal_forms(word: Value, config: AcceleratorConfig) -> Value:
    """A bit for every opcode: the command word (256 bits, as in memory) has it, `hw.isa.decode`
    accepts the word, from the same definitions, the configuration has what it needs, DRAM is
    accessed in whole beats of its bus, and the values of a destination word fit its memory.

    Bits stand in the order of the opcodes. A word is legal if any is 1: to find that out is work
    for another cycle.
    """
    forms = []
    for spec in commands_of(config).values():
        view = memory_layout(spec.opcode)(word)
        conditions = [view.opcode == spec.opcode, Const(_exists(spec.opcode, config), 1)]
        conditions += [view.waits[slot].unit <= max(Unit) for slot in range(WAIT_SLOTS)]
        names = spec.header if config.decoder else ()
        conditions += [view[item.name] == 0 for item in HEADER if item.name not in names]
        conditions += [view[item.name] != 0 for item in spec.fields if item.nonzero]
        conditions += _conditions(spec, view, config)
        forms.append(Cat(conditions).all())
    return Cat(forms)


def _exists(opcode: Opcode, config: AcceleratorConfig) -> bool:
    if opcode == Opcode.SPARSE_GEMM:
        return config.sparse
    if opcode == Opcode.SCALED_GEMM:
        return config.scales
    return config.decoder or opcode not in DECODER_OPCODES


def _conditions(spec: CommandSpec, view, config: AcceleratorConfig) -> list[Value]:
    """What the fields of a command must be, beyond not 0."""
    names = {item.name for item in spec.fields}
    found = []
    if not config.decoder:
        found += [~view[name] for name in DECODER_FIELDS if name in names]
    if spec.opcode in (Opcode.LOAD, Opcode.STORE):
        last = Memory.MASK if spec.opcode == Opcode.LOAD else Memory.RESIDUAL
        beat = exact_log2(config.bus_bytes)
        found += [view.memory != Memory.NONE, view.memory <= last]
        found += [view.offset[:beat] == 0, view.dram_stride[:beat] == 0]
    if "dst_memory" in names:
        found += [view.dst_memory <= Memory.WEIGHT]
        if config.columns > config.rows:
            found += [~((view.dst_memory == Memory.ACTIVATION) & view.dst_by_column)]
    if spec.opcode in MATRIX_OPCODES:
        packed = view.w_int4 | (spec.opcode == Opcode.SPARSE_GEMM)
        found += [~(view.w_by_column & packed), view.w_int4 | (view.w_group == 0)]
        found += [~(view.wide & view.a_unsigned)]
        if spec.opcode == Opcode.SCALED_GEMM:
            found += [view.w_group != 0]
        if spec.opcode == Opcode.LOW_GEMM:
            found += [view.wide, ~view.w_int4]
        if not config.int4:
            found += [~view.w_int4]
        if config.decoder and not config.trims and spec.opcode == Opcode.GEMM:
            found += [~view.trim]
        if not config.decoder:
            found += [view.accumulate | ~view.rescale]
    if spec.opcode == Opcode.VECTOR:
        functions = max(Function) if config.decoder else Function.GELU_TANH
        found += [view.function <= functions, ~(view.wide & view.wrap)]
        others = view.add_residual | view.from_residual | view.write_residual
        others |= view.statistics | view.wrap
        usable = view.two_stage & (view.dst_memory != Memory.NONE) & ~others
        found += [~(view.gated & view.rotate), ~(view.gated | view.rotate) | usable]
        found += [~(view.gated & view.groups[0])]
    if spec.opcode == Opcode.ADD:
        found += [view.register != 0]
    return found


def target_units(m: Module, word: Value, config: AcceleratorConfig) -> Signal:
    """One bit for each of `UNITS`: the unit that executes the command, none if dispatch does."""
    target = Signal(len(UNITS))
    with m.Switch(memory_layout(Opcode.HALT)(word).opcode):
        for spec in commands_of(config).values():
            bits = [1 << UNITS.index(unit) for unit in spec.units]
            with m.Case(spec.opcode):
                if spec.opcode == Opcode.LOAD:
                    queue = memory_layout(Opcode.LOAD)(word).queue
                    with m.If(queue):
                        m.d.comb += target.eq(bits[1])
                    with m.Else():
                        m.d.comb += target.eq(bits[0])
                else:
                    m.d.comb += target.eq(bits[0] if bits else 0)
    return target
