"""Cells of an ECP5 netlist as the tables that sim/netlist.cpp runs.

Net 0 is constant 0, net 1 constant 1; net 2 takes outputs that nobody reads. Tables, each behind
the number of its entries:

- logic, in the order of dependence: four inputs, output, look-up table. Output 0: a read of the
  LUT memory named instead of the table. Carry chains and multiplexers are look-up tables too.
- flip-flops: data, enable, reset, output, value after reset.
- LUT memories: four nets of data, write address and output, write enable between, contents.
- block RAMs: two ports, each four words of what it is and its nets. Their contents at the end.
- multipliers: two operands, their signedness, enables of the three registers, product, whether the
  operands have no registers.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Netlist", "NetlistError"]

ZERO, ONE, UNUSED = 0, 1, 2
MUX, XOR, NOT = 0xCACA, 0x6666, 0x5555
"""Tables by inputs a, b, c, d from the least bit: `c ? b : a`, `a ^ b`, `~a`."""

WRITE_MODES = ("NORMAL", "WRITETHROUGH", "READBEFOREWRITE")
BLOCK_BYTES = 2048

Cell = dict[str, Any]


class NetlistError(RuntimeError):
    """A cell that this simulator does not know, or logic that depends on itself."""


@dataclass
class Netlist:
    """The tables of one module, and where its ports are.

    ports: for each port whether it is an input, and its nets from the least bit.
    lut_names: of the cells behind `logic`. drivers: for each net that a cell drives, its name.
    """

    ports: dict[str, tuple[bool, list[int]]]
    nets: int
    logic: list[list[int]] = field(default_factory=list)
    lut_names: list[str] = field(default_factory=list)
    drivers: dict[int, str] = field(default_factory=dict)
    flip_flops: list[list[int]] = field(default_factory=list)
    small: list[list[int]] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    multipliers: list[list[int]] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)

    def words(self) -> NDArray[np.uint32]:
        """What `netlist_load` takes."""
        words = [self.nets]
        for table in (self.logic, self.flip_flops, self.small, self.blocks, self.multipliers):
            words.append(len(table))
            for entry in table:
                words.extend(entry)
        return np.array([*words, *self.contents], np.uint32)

    def with_wrong_bit(self, rng: random.Random) -> tuple[Netlist, str]:
        """The same with one bit of one look-up table inverted, and where that is."""
        index = rng.choice([i for i, entry in enumerate(self.logic) if entry[4]])
        used = sum(1 for net in self.logic[index][:4] if net != ZERO)
        bit = rng.randrange(1 << used)
        logic = [list(entry) for entry in self.logic]
        logic[index][5] ^= 1 << bit
        return replace(self, logic=logic), f"bit {bit} of {self.lut_names[index]}"

    @classmethod
    def of(cls, module: dict[str, Any]) -> Netlist:
        """From a flat module as Yosys' `write_json` has it. Raises `NetlistError`."""
        return _Reader(module).netlist


def _number(cell: Cell, key: str, default: str = "0") -> int:
    return int(cell["parameters"].get(key, default).replace("x", "0"), 2)


class _Reader:
    def __init__(self, module: dict[str, Any]):
        self._numbers: dict[int | str, int] = {"0": ZERO, "x": ZERO, "z": ZERO, "1": ONE}
        cells = dict(sorted(module["cells"].items()))
        # Zeros of multipliers (hw/cells/multiplier.py) are constants for who reads them.
        zeros = [n for n, c in cells.items() if c["type"] == "LUT4" and not _number(c, "INIT")]
        for name in zeros:
            self._numbers[cells.pop(name)["connections"]["Z"][0]] = ZERO
        ports = {
            name: (port["direction"] == "input", self._nets(port["bits"]))
            for name, port in module["ports"].items()
        }
        self.netlist = Netlist(ports, 0)
        self._fresh, self._cell = 0, ""
        for name, cell in cells.items():
            kind = cell["type"]
            if kind == "$scopeinfo":
                continue
            convert = getattr(self, f"_{kind.lower()}", None)
            if convert is None:
                raise NetlistError(f"cell {name}: {kind} cannot be simulated")
            self._cell = name
            convert(name, cell)
        self.netlist.nets = self._next
        self._sort()

    # --- nets and parameters ------------------------------------------------------------------

    @property
    def _next(self) -> int:
        return 3 + len(self._numbers)

    def _nets(self, bits: Sequence[int | str]) -> list[int]:
        return [self._numbers.setdefault(bit, self._next) for bit in bits]

    def _new(self) -> int:
        self._fresh += 1
        return self._driven(self._nets([f"new {self._fresh}"]))[0]

    def _in(self, cell: Cell, *names: str) -> list[int]:
        return [net for name in names for net in self._nets(cell["connections"].get(name) or "0")]

    def _out(self, cell: Cell, *names: str) -> list[int]:
        found = [cell["connections"].get(name) for name in names]
        nets = [net for bits in found for net in (self._nets(bits) if bits else [UNUSED])]
        return self._driven(nets)

    def _driven(self, nets: list[int]) -> list[int]:
        self.netlist.drivers.update(dict.fromkeys(nets, self._cell))
        return nets

    def _pins(self, cell: Cell, name: str, width: int, output: bool = False) -> list[int]:
        names = [f"{name}{i}" for i in range(width)]
        return self._out(cell, *names) if output else self._in(cell, *names)

    def _option(self, name: str, cell: Cell, key: str, known: Sequence[str], default: str) -> str:
        value = cell["parameters"].get(key, default).rstrip()  # Yosys: "1 " is a text
        if value not in known:
            raise NetlistError(f"cell {name}: {key}={value} cannot be simulated")
        return value

    # --- logic --------------------------------------------------------------------------------

    def _table(self, name: str, inputs: Sequence[int], table: int, out: int | None = None) -> int:
        out = self._new() if out is None else out
        padded = [*inputs, ZERO, ZERO, ZERO][:4]
        self.netlist.logic.append([*padded, out, table])
        self.netlist.lut_names.append(name)
        return out

    def _lut4(self, name: str, cell: Cell) -> None:
        table = _number(cell, "INIT")
        self._table(name, self._in(cell, "A", "B", "C", "D"), table, self._out(cell, "Z")[0])

    def _pfumx(self, name: str, cell: Cell) -> None:
        inputs = self._in(cell, "BLUT", "ALUT", "C0")
        self._table(name, inputs, MUX, self._out(cell, "Z")[0])

    def _l6mux21(self, name: str, cell: Cell) -> None:
        self._table(name, self._in(cell, "D0", "D1", "SD"), MUX, self._out(cell, "Z")[0])

    def _ccu2c(self, name: str, cell: Cell) -> None:
        carry = self._in(cell, "CIN")[0]
        for half in "01":
            inputs = self._in(cell, *(f"{pin}{half}" for pin in "ABCD"))
            table = _number(cell, f"INIT{half}")
            inject = self._option(name, cell, f"INJECT1_{half}", ("YES", "NO"), "YES") == "YES"
            propagate = self._table(name, inputs, table)
            generate = ZERO if inject else self._table(name, inputs[:2], table & 15)
            into = ZERO if inject else carry
            self._table(name, [propagate, into], XOR, self._out(cell, f"S{half}")[0])
            out = self._out(cell, "COUT")[0] if half == "1" else None
            carry = self._table(name, [generate, carry, propagate], MUX, out)

    # --- memory -------------------------------------------------------------------------------

    def _trellis_ff(self, name: str, cell: Cell) -> None:
        self._clock(name, cell, "CLK", "CLKMUX")
        self._option(name, cell, "LSRMUX", ("LSR",), "LSR")
        self._option(name, cell, "LSRMODE", ("LSR",), "LSR")
        data, enable, reset = self._in(cell, "DI", "CE", "LSR")
        if reset != ZERO:
            self._option(name, cell, "SRMODE", ("LSR_OVER_CE",), "LSR_OVER_CE")
        mux = self._option(name, cell, "CEMUX", ("1", "CE", "INV"), "1")
        if mux == "INV":
            enable = self._table(name, [enable], NOT)
        enable = ONE if mux == "1" else enable
        start = self._option(name, cell, "REGSET", ("SET", "RESET"), "RESET") == "SET"
        self.netlist.flip_flops.append([data, enable, reset, self._out(cell, "Q")[0], int(start)])

    def _trellis_dpr16x4(self, name: str, cell: Cell) -> None:
        self._clock(name, cell, "WCK", "WCKMUX")
        self._option(name, cell, "WREMUX", ("WRE",), "WRE")
        contents = _number(cell, "INITVAL")
        self.netlist.logic.append([*self._in(cell, "RAD"), ZERO, len(self.netlist.small)])
        self.netlist.lut_names.append("")
        self.netlist.small.append(
            [
                *self._in(cell, "DI", "WAD", "WRE"),
                *(self._out(cell, "DO") if cell["connections"].get("DO") else [UNUSED] * 4),
                contents & 0xFFFFFFFF,
                contents >> 32,
            ]
        )

    def _dp16kd(self, name: str, cell: Cell) -> None:
        entry = []
        for port in "AB":
            self._clock(name, cell, f"CLK{port}", f"CLK{port}MUX")
            register = self._option(name, cell, f"REGMODE_{port}", ("NOREG", "OUTREG"), "NOREG")
            mode = self._option(name, cell, f"WRITEMODE_{port}", WRITE_MODES, "NORMAL")
            select = cell["parameters"].get(f"CSDECODE_{port}", "0b000")
            entry += [
                _number(cell, f"DATA_WIDTH_{port}", "10010"),
                int(register == "OUTREG"),
                WRITE_MODES.index(mode),
                int(select.removeprefix("0b"), 2),
                *self._pins(cell, f"DI{port}", 18),
                *self._pins(cell, f"AD{port}", 14),
                *self._in(cell, f"CE{port}", f"OCE{port}", f"WE{port}", f"RST{port}"),
                *self._pins(cell, f"CS{port}", 3),
                *self._pins(cell, f"DO{port}", 18, output=True),
            ]
            if cell["parameters"].get("RESETMODE") == "ASYNC" and entry[-22] != ZERO:
                raise NetlistError(f"cell {name}: an asynchronous reset cannot be simulated")
        self.netlist.blocks.append(entry)
        for row in range(64):
            bits = _number(cell, f"INITVAL_{row:02X}")
            for byte in range(32):
                self.netlist.contents.append(bits >> (20 * (byte // 2) + 9 * (byte % 2)) & 0x1FF)

    def _mult18x18d(self, name: str, cell: Cell) -> None:
        enables, clocks = [], []
        for register in ("INPUTA", "INPUTB", "OUTPUT"):
            clock = ("CLK0",) if register == "OUTPUT" else ("CLK0", "NONE")
            clocks.append(self._option(name, cell, f"REG_{register}_CLK", clock, "NONE"))
            known = ("CE0", "CE1", "CE2", "CE3")
            enables += self._in(cell, self._option(name, cell, f"REG_{register}_CE", known, "CE0"))
        if clocks[0] != clocks[1]:
            raise NetlistError(f"cell {name}: one operand with a register cannot be simulated")
        self._clock(name, cell, "CLK0", "")
        for pin in ("SOURCEA", "SOURCEB", "RST0", "RST1", "RST2", "RST3"):
            if self._in(cell, pin) != [ZERO]:
                raise NetlistError(f"cell {name}: {pin} cannot be simulated")
        self.netlist.multipliers.append(
            [
                *self._pins(cell, "A", 18),
                *self._pins(cell, "B", 18),
                *self._in(cell, "SIGNEDA", "SIGNEDB"),
                *enables,
                *self._pins(cell, "P", 36, output=True),
                int(clocks[0] == "NONE"),
            ]
        )

    def _clock(self, name: str, cell: Cell, pin: str, mux: str) -> None:
        if self._in(cell, pin) != self.netlist.ports["clk"][1]:
            raise NetlistError(f"cell {name}: {pin} is not the clock")
        if cell["parameters"].get(mux, pin) not in (pin, "CLK"):
            raise NetlistError(f"cell {name}: {mux}={cell['parameters'][mux]} cannot be simulated")

    # --- order --------------------------------------------------------------------------------

    def _sort(self) -> None:
        """Put logic behind what it reads. Raises `NetlistError` if it depends on itself."""
        logic, small = self.netlist.logic, self.netlist.small
        readers: dict[int, list[int]] = defaultdict(list)
        waiting = [0] * len(logic)
        drives = [[c[4]] if c[4] else small[c[5]][9:13] for c in logic]
        driven = {net for nets in drives for net in nets} - {UNUSED}
        for index, entry in enumerate(logic):
            for net in entry[:4]:
                if net in driven:
                    readers[net].append(index)
                    waiting[index] += 1
        order = [index for index, count in enumerate(waiting) if not count]
        for index in order:
            for net in drives[index]:
                for reader in readers.get(net, ()) if net != UNUSED else ():
                    waiting[reader] -= 1
                    if not waiting[reader]:
                        order.append(reader)
        if len(order) < len(logic):
            stuck = next(i for i, count in enumerate(waiting) if count)
            raise NetlistError(f"logic at {self.netlist.lut_names[stuck]} depends on itself")
        self.netlist.logic = [logic[i] for i in order]
        self.netlist.lut_names = [self.netlist.lut_names[i] for i in order]
