"""Commands for tests of the vector unit: random ones, as dispatch sends them, and what they wait
for."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hw import isa
from hw.config import AcceleratorConfig
from hw.interfaces import command_layout
from hw.isa import SELECTED, Command, Memory, Opcode
from hw.vector.command import VECTOR_OPCODES
from sw.compiler.stream.access import selection_words

__all__ = ["CommandMaker", "complete", "dependencies", "dispatched"]


def dispatched(command: Command) -> int:
    """The command word as dispatch sends it."""
    v = command.values
    layout = command_layout(command.opcode)
    names = ("register",) if command.opcode == Opcode.SELECT else ("period", "wide")
    header = {"opcode": command.opcode, **{name: v.get(name, 0) for name in names}}
    fields = int.from_bytes(isa.encode(command), "little") >> isa.HEADER_BITS << isa.HEADER_BITS
    return fields | layout.const(header).as_value().value


def dependencies(config: AcceleratorConfig, commands: list[Command]) -> list[int]:
    """How many commands must be done before each one: what the compiler's waits ensure."""
    needs = []
    slots_of, written_of = [], []
    for command in commands:
        v = command.values
        slots = set()
        writes = v.get("write_residual", 0)
        if command.opcode == Opcode.SELECT:  # it keeps the order of its own rows
            slots = set(range(v["slot"], v["slot"] + v["rows"])) if writes else set()
        elif command.opcode != Opcode.VECTOR or v["statistics"]:
            slots = set(range(v["slot"], v["slot"] + v["rows"]))
        reads = command.opcode == Opcode.NORM or (
            command.opcode == Opcode.VECTOR
            and (v["from_residual"] or v["add_residual"] or v["rotate"])
        )

        def words(base, groups=v["groups"], v=v):
            return {base + i * v["res_stride"] + g for i in range(v["rows"]) for g in range(groups)}

        read = words(v["res_address"]) if reads else set()
        need = 0
        for earlier in range(len(needs)):
            if slots & slots_of[earlier] or read & written_of[earlier]:
                need = earlier + 1
        needs.append(need)
        # Nothing waits for a SELECT that reads what it then overwrites.
        slots_of.append(set() if command.opcode == Opcode.SELECT else slots)
        if command.opcode == Opcode.SELECT and writes:
            written_of.append(words(v["res_address"], selection_words(config)))
        else:
            written_of.append(words(v["res_dst_address"]) if writes else set())
    return needs


def complete(opcode: Opcode, **values: int) -> Command:
    """A command with every field, 0 where not given."""
    fields = {item.name: 0 for item in isa.COMMANDS[opcode].all_fields}
    unknown = set(values) - set(fields)
    assert not unknown, unknown
    return Command(opcode, {**fields, **{name: int(value) for name, value in values.items()}})


OTHER_FORMS = ("add_residual", "from_residual", "write_residual", "statistics", "wrap")
"""What a VECTOR that is gated or rotates cannot do."""


class CommandMaker:
    """Random commands that fit the memories."""

    def __init__(self, config: AcceleratorConfig, seed: int, rows: int = 12, groups: int = 12):
        self.config = config
        self.random = random.Random(seed)
        self.rows, self.groups = rows, groups

    def destination(self, rows: int, groups: int, wide: int = 0) -> dict[str, int]:
        c, rng = self.config, self.random
        rows *= 1 + wide
        memory = rng.choice([Memory.NONE, Memory.ACTIVATION, Memory.WEIGHT, Memory.ACTIVATION])
        by_column = rng.randrange(2)
        if memory == Memory.ACTIVATION and c.columns > c.rows:
            by_column = 0
        per_word = (c.columns if by_column else c.rows) // c.lanes
        panels = -(-groups // per_word)
        words = c.weight_words if memory == Memory.WEIGHT else c.activation_words
        stride = rows + rng.randrange(4)
        return {
            "dst_memory": memory,
            "dst_by_column": by_column,
            "dst_address": rng.randrange(words - (panels - 1) * stride - rows + 1),
            "dst_stride": stride,
        }

    def accumulator(self, rows: int, groups: int) -> dict[str, int]:
        c, rng = self.config, self.random
        panels = -(-groups // c.groups_per_column_panel)
        stride = rows + rng.randrange(4)
        words = c.accumulator_words
        return {
            "acc_address": rng.randrange(words - (panels - 1) * stride - rows + 1),
            "acc_stride": stride,
        }

    def residual(self, rows: int, groups: int) -> dict[str, int]:
        """Operand and result in different halves of the memory, or in place."""
        rng = self.random
        stride = groups + rng.randrange(3)
        half = self.config.residual_words // 2
        span = (rows - 1) * stride + groups
        first, second = (rng.randrange(half - span + 1) for _ in range(2))
        if rng.random() < 0.5:
            first, second = second + half, first
        else:
            second += half
        if rng.random() < 0.3:
            second = first
        return {"res_address": first, "res_stride": stride, "res_dst_address": second}

    def form(self, opcode: Opcode, fixed: Mapping[str, int]) -> str:
        """What a command makes of its lanes: "gated", "rotate" or nothing of the kind."""
        if opcode != Opcode.VECTOR or not self.config.decoder:
            return ""
        for form in ("gated", "rotate"):
            if form in fixed:
                return form if fixed[form] else ""
        other = any(fixed.get(name, 0) for name in OTHER_FORMS)
        if other or not (fixed.get("two_stage", 1) and fixed.get("dst_memory", 1)):
            return ""
        forms = ["", "", "rotate"] if fixed.get("groups", 2) % 2 else ["", "rotate", "gated"]
        return self.random.choice(forms)

    def select(self, **fixed: int) -> Command:
        c, rng = self.config, self.random
        rows = fixed.get("rows", rng.choice([1, 2, 3, SELECTED]))
        groups = fixed.get("groups", rng.choice([1, 2, 3, rng.randint(1, self.groups)]))
        words = selection_words(c)
        stride = words + rng.randrange(3)
        width = groups * c.lanes
        values = {
            "rows": rows,
            "groups": groups,
            **self.accumulator(rows, groups),
            "slot": rng.randrange(2 * SELECTED - rows + 1),
            "limit": rng.choice([-3, 0, 1, width, isa.NO_LIMIT, rng.randint(0, width)]),
            "base": rng.choice([0, (1 << 20) - 2, rng.getrandbits(20)]),
            "score_shift": rng.choice([0, 0, 31, rng.randrange(32)]),
            "first": rng.randrange(2),
            "write_residual": rng.randrange(2),
            "res_address": rng.randrange(c.residual_words - (rows - 1) * stride - words + 1),
            "res_stride": stride,
            "register": rng.randrange(16),
        }
        return complete(Opcode.SELECT, **{**values, **fixed})

    def make(self, opcode: Opcode | None = None, **fixed: int) -> Command:
        c, rng = self.config, self.random
        opcode = opcode or rng.choice(VECTOR_OPCODES + ((Opcode.SELECT,) if c.decoder else ()))
        if opcode == Opcode.SELECT:
            return self.select(**fixed)
        rows = fixed.get("rows", rng.choice([1, 1, 2, 3, rng.randint(1, self.rows)]))
        groups = fixed.get("groups", rng.choice([1, 1, 2, 3, rng.randint(1, self.groups)]))
        form = self.form(opcode, fixed)
        if form == "gated":
            groups += groups % 2
        params = {
            "param0": rng.randrange(c.param_words - groups + 1),
            "param1": rng.randrange(c.param_words - groups + 1),
        }
        values: dict[str, int] = {
            "rows": rows,
            "groups": groups,
            "slot": rng.randrange(c.row_slots - rows + 1),
        }
        if c.decoder and opcode != Opcode.SOFTMAX:
            values["wide"] = fixed.get("wide", rng.randrange(2) & ~fixed.get("wrap", 0))
            values["same_param1"] = rng.randrange(2)
            values |= {"rms": rng.randrange(2)} if opcode == Opcode.NORM else {}
            values |= {"same_param0": rng.randrange(2)} if opcode == Opcode.VECTOR else {}
        values |= self.destination(rows, groups, values.get("wide", 0))
        if opcode == Opcode.VECTOR:
            values |= self.accumulator(rows, groups) | self.residual(rows, groups) | params
            for name in (
                "from_residual add_residual write_residual statistics statistics_first two_stage "
                "wrap"
            ).split():
                values[name] = rng.randrange(2)
            values["wrap"] &= 1 - values.get("wide", 0)
            values |= {"function": rng.randrange(4 + c.decoder), "res_shift": rng.randrange(16)}
            if form:
                values |= dict.fromkeys(OTHER_FORMS, 0)
                values |= {form: 1, "two_stage": 1}
                if not values["dst_memory"]:
                    values |= {"dst_memory": Memory.WEIGHT}
        elif opcode == Opcode.NORM:
            values |= self.residual(rows, groups) | params
            values |= {
                "write_residual": rng.randrange(2),
                "features": rng.choice([1, 8191, groups * c.lanes, rng.randint(1, 8191)]),
                "epsilon": rng.choice([0, 1, (1 << 32) - 1, rng.getrandbits(rng.randint(1, 32))]),
            }
        elif opcode == Opcode.SCALE:
            values |= self.accumulator(rows, groups) | {"param1": params["param1"]}
        else:
            width = groups * c.lanes
            values |= self.accumulator(rows, groups)
            values |= {
                "limit": rng.choice([-rows, 0, 1, width, isa.NO_LIMIT, rng.randint(-2, width)]),
                "causal": rng.randrange(2),
                "score_shift": rng.randrange(32),
                "first": rng.randrange(2),
                "drop": rng.randrange(8),
                "period": rng.randrange(rows + 2) if c.decoder else 0,
            }
        return complete(opcode, **{**values, **fixed})
