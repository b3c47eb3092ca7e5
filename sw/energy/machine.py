"""What a machine does that takes energy, action by action: how often, and at what price each time.

An `Action` has a count, from `Counts`, and an energy, from a table of a technology and the sizes of
the machine. A table of the machine itself has the energies of all actions under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from boards.synthesis import UNITS
from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES
from sw.area.model import PIPELINE_MULTIPLIERS, area_model
from sw.energy.counts import UNITS_ASLEEP, Counts
from sw.energy.quantity import Quantity
from sw.energy.table import MACHINE, Table, TableError, machine_of
from sw.energy.technology import Technology

__all__ = ["PARTS", "Action", "actions", "reference"]

PARTS = {
    "array": "multiply-accumulates",
    "weights": "weights into the array",
    "vector": "vector lanes",
    "activation": "activation memory",
    "weight": "weight memory",
    "residual": "residual memory",
    "accumulator": "accumulator",
    "param": "parameter memories",
    "mask": "mask memory",
    "front end": "commands",
    "clock awake": "registers, working",
    "clock idle": "registers, awake without work",
    "clock asleep": "registers, asleep",
    "bus": "bus",
    "dram": "DRAM",
    "leakage": "leakage",
}
"""By which energies are shown, in order, and what they are called."""

ROW_BITS = 9
"""Of an activation in the array."""
FORMATS = {"int8": 8, "int4": 8, "sparse_int8": 8, "sparse_int4": 8, "scaled": 4}
"""Bits of weights as the array multiplies by them; INT4 without scales is unpacked before."""
FIRST, SECOND, THIRD, GELU, SUM = (32, 16), (18, 16), (16, 16), (10, 9), 49
"""Operands of the multipliers of a lane, and its widest sum (`hw/vector/lane.py`)."""
COMMAND_COPIES = 3
"""Registers that a command passes: of fetch, of its queue, of its unit."""
SOFTMAX_SHIFTS = 4
"""Stages of a softmax lane that are as large as an adder each."""
DSP_BITS = 18 + 18 + 36
"""Registers of a multiplier: those of an FPGA are not among the counted ones."""


@dataclass(frozen=True)
class Action:
    """part: of `PARTS`. component, name: as in a table of the machine. count: how often it happens.
    price: what it takes once, of a technology, in pJ."""

    part: str
    component: str
    name: str
    count: Callable[[Counts], float]
    price: Callable[[Technology], Quantity]


def reference(table: Table, config: AcceleratorConfig) -> dict[tuple[str, str], Quantity]:
    """Energies of a machine's actions, what Accelergy calls its ERT: of all by a technology, of
    those that are in it by a table of the machine. Raises `TableError`."""
    if not table.of_machine:
        technology = Technology(table)
        return {(a.component, a.name): a.price(technology) for a in actions(config)}
    own = machine_of(config)
    if table.machine and table.machine.rpartition(" ")[2] != own.rpartition(" ")[2]:
        raise TableError(
            f"energy table {table.file}: weft.machine is {table.machine!r}, not {own!r}: take a "
            f"table of a technology, or one of this machine"
        )
    keys = [(a.component, a.name) for a in actions(config)]
    return {key: table.points(*key)[0].energy for key in keys if key in table.actions}


def actions(c: AcceleratorConfig) -> Iterator[Action]:
    """All that a machine does."""
    yield from _array(c)
    yield from _vector(c)
    yield from _memories(c)
    yield from _clocks(c)
    yield from _outside(c)


def _named(name: str, scale: float = 1.0) -> Callable[[Counts], float]:
    return lambda counts: counts[name] * scale


def _array(c: AcceleratorConfig) -> Iterator[Action]:
    """A multiply-accumulate: 9 bits of an activation by a weight, added to a partial sum. Wide
    activations are two rows, and so counted twice."""
    offered = {"int4": c.int4, "sparse_int8": c.sparse, "scaled": c.scales}
    offered["sparse_int4"] = c.sparse and c.int4
    for form, bits in FORMATS.items():
        if not offered.get(form, True):
            continue

        def price(t: Technology, form: str = form, bits: int = bits) -> Quantity:
            product = t.multiply(ROW_BITS, bits)
            if form.endswith("int4"):  # a narrow value on the same multiplier
                narrow = t.multiply(ROW_BITS, 4)
                product = Quantity(narrow.value, narrow.low, product.high)
            return product + t.add(c.psum_bits)

        count = _named(f"rows_{form}", c.rows * c.columns)
        yield Action("array", f"{MACHINE}array", f"mac_{form}", count, price)
    word = 8 * c.weight_bytes
    yield Action(
        "weights", f"{MACHINE}array", "load_word", _named("weight_entries"),
        lambda t: t.write_register() * word,
    )  # fmt: skip


def _vector(c: AcceleratorConfig) -> Iterator[Action]:
    """Values of lanes, by the multipliers that they need."""
    kinds = ("requantise", "function", "residual", "gated", "rotate", "norm", "scale", "select")
    third = ("norm", "rotate", "residual")

    def groups(*names: str) -> Callable[[Counts], float]:
        return lambda counts: c.lanes * sum(counts[f"groups_{name}"] for name in names)

    def affine(t: Technology, operands: tuple[int, int]) -> Quantity:
        return t.multiply(*operands) + t.add(SUM)

    make = partial(Action, "vector", f"{MACHINE}vector")
    yield make("first_stage", groups(*kinds), lambda t: affine(t, FIRST))
    yield make("second_stage", _named("param1_read", c.lanes), lambda t: affine(t, SECOND))
    yield make("third_product", groups(*third), lambda t: affine(t, THIRD))
    yield make("function", groups("function"), lambda t: affine(t, GELU))
    yield make("softmax", groups("softmax"), lambda t: t.add(32) * SOFTMAX_SHIFTS)


def _memories(c: AcceleratorConfig) -> Iterator[Action]:
    """Reads and writes of words of each memory, whoever makes them."""
    sizes = {
        "activation": (c.activation_words, 8 * c.rows),
        "weight": (c.weight_words, 8 * c.weight_bytes),
        "residual": (c.residual_words, 16 * c.lanes),
        "accumulator": (c.accumulator_words, 32 * c.columns),
        "param": (c.param_words, 64 * c.lanes),
        "mask": (c.mask_words, c.columns),
    }
    for memory, (words, bits) in sizes.items():
        for way in ("read", "write"):

            def count(counts: Counts, memory: str = memory, way: str = way) -> float:
                names = ("param0", "param1") if memory == "param" else (memory,)
                heads = tuple(f"{name}_{way}" for name in names)
                return sum(n for name, n in counts.activity.items() if name.startswith(heads))

            def price(t: Technology, way: str = way, w: int = words, bits: int = bits) -> Quantity:
                return t.access(way, w * bits / 8, bits)

            yield Action(memory, f"{MACHINE}{memory}", way, count, price)

    def sums(counts: Counts) -> float:
        return counts["accumulator_write_matrix"] * c.columns

    yield Action("accumulator", f"{MACHINE}accumulator", "add", sums, lambda t: t.add(32))


def _clocks(c: AcceleratorConfig) -> Iterator[Action]:
    """Cycles of each unit's registers. Idle: awake, and no row or weight for the array, or no group
    for the lanes; of other units it is not known."""
    model = area_model()
    for unit in (*UNITS, "other"):
        bits = model.unit(unit, c)[1]
        bits += DSP_BITS * c.rows * c.columns * (unit == "array")
        bits += DSP_BITS * PIPELINE_MULTIPLIERS * c.lanes * (unit == "vector lanes")

        def idle(counts: Counts, unit: str = unit) -> float:
            without = {
                "array": counts["idle_array"],
                "vector lanes": counts.cycles - counts.groups,
            }
            return max(without.get(unit, 0) - counts.asleep(unit), 0)

        def awake(counts: Counts, unit: str = unit, idle: Callable = idle) -> float:
            return max(counts.cycles - counts.asleep(unit) - idle(counts), 0)

        component = f"{MACHINE}clock.{unit.replace(' ', '_')}"
        yield Action(
            "clock awake", component, "awake", awake, lambda t, b=bits: t.clock("clock", b)
        )
        if unit in ("array", "vector lanes"):
            yield Action(
                "clock idle", component, "idle", idle, lambda t, b=bits: t.clock("clock", b)
            )
        if unit in UNITS_ASLEEP:
            yield Action(
                "clock asleep", component, "asleep", lambda counts, u=unit: counts.asleep(u),
                lambda t, b=bits: t.clock("asleep", b),
            )  # fmt: skip


def _outside(c: AcceleratorConfig) -> Iterator[Action]:
    """Commands, bytes between the accelerator and its memory, and what every cycle takes."""
    yield Action(
        "front end", f"{MACHINE}front_end", "command", lambda counts: counts.commands,
        lambda t: t.write_register() * (8 * COMMAND_BYTES * COMMAND_COPIES),
    )  # fmt: skip
    ways: dict[str, Callable[[Counts], float]] = {
        "read": lambda counts: counts.read_bytes,
        "write": lambda counts: counts.write_bytes,
    }
    for way, count in ways.items():
        yield Action("bus", f"{MACHINE}bus", way, count, lambda t: t.wire(8))
    for way, count in ways.items():
        yield Action("dram", f"{MACHINE}dram", way, count, lambda t, way=way: t.dram(way, 8))
    yield Action(
        "leakage", f"{MACHINE}leakage", "cycle", lambda counts: counts.cycles,
        lambda t: t.leakage(c.onchip_bytes / 1024),
    )  # fmt: skip
