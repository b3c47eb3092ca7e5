"""Verilog as Yosys writes it to Verilog that simulates fast: the same registers, fewer steps.

For the form of the RTL that is simulated alone (`Technology.SIMULATION`). Each function changes how
something is written, never what it means: tests/sim/test_simulated.py has Yosys prove it.
"""

from __future__ import annotations

import re

__all__ = ["fast_to_simulate"]

_MODULE = re.compile(r"^module .*?^endmodule\n", re.M | re.S)
_START = re.compile(r"^    if \(\\\$auto\$verilog_backend\S+ \) begin end\n", re.M)
_FIRST_VALUE = re.compile(
    r"^  reg \\\$auto\$verilog_backend\S+ ;\n  initial \\\$auto\$verilog_backend\S+  <= 0;\n", re.M
)
_NEXT = re.compile(r"^  always @\* begin\n((?:    .*\n)+)  end\n", re.M)
_TAKEN = re.compile(r"^  always @\(posedge (\w+)\)\n    (\S+ )<= (\\\S+ );\n", re.M)
_ASSIGNED = re.compile(r"^( +)(\\\S+ |\w+)((?: ?\[[\d:]+\])?) = ", re.M)
_DECLARED = re.compile(r"^  reg (?:\[\d+:0\] )?(\\\S+ );\n", re.M)
_NAME = re.compile(r"\\\S+")
_REPEATED = re.compile(r"(?<=[{,] )((?:\\\S+ |[A-Za-z_]\w*)(?: ?\[[\d:]+\])?)((?:, \1)+)(?=,| \})")


def fast_to_simulate(text: str) -> str:
    """The same design. text: what Amaranth's conversion to Verilog writes, whose combinational
    blocks may start by a register of their own (`sim.export`)."""
    text = _MODULE.sub(lambda module: _registers_in_place(module[0]), _without_starts(text))
    return _REPEATED.sub(lambda bit: f"{{{1 + bit[2].count(', ')}{{{bit[1]}}}}}", text)


def _without_starts(text: str) -> str:
    """Without the registers that make `always @*` run at time 0, as Verilator does anyway."""
    return _FIRST_VALUE.sub("", _START.sub("", text))


def _registers_in_place(module: str) -> str:
    """A clocked block for each register, instead of one `always @*` for its next value and one
    that takes it over.

    A register that keeps its value is not touched, and what only its next value needs is computed
    when it changes. Otherwise a simulator computes and copies all of them in every cycle.
    """
    mentions: dict[str, int] = {}
    for name in _NAME.findall(module):
        mentions[name] = mentions.get(name, 0) + 1
    blocks = {}
    for block in _NEXT.finditer(module):
        first = _ASSIGNED.match(block[1])
        if first is None or first[3]:
            continue  # what has no value to begin with gains nothing in place
        names = [name for _, name, _ in _ASSIGNED.findall(block[1])]
        # Not what something reads: beside its declaration and `_TAKEN` it is only assigned.
        if set(names) == {first[2]} and mentions.get(first[2].strip()) == len(names) + 2:
            blocks[first[2]] = block
    declared = {found[1]: found for found in _DECLARED.finditer(module)}
    changes: dict[tuple[int, int], str] = {}
    for taken in _TAKEN.finditer(module):
        clock, register, following = taken.groups()
        block = blocks.get(following)
        if block is None:
            continue
        body = _ASSIGNED.sub(lambda found, to=register: f"{found[1]}{to}{found[3]} <= ", block[1])
        body = body.removeprefix(f"    {register} <= {register.strip()};\n")
        body = body.removeprefix(f"    {register} <= {register};\n")
        changes[taken.span()] = f"  always @(posedge {clock}) begin\n{body}  end\n"
        changes[block.span()] = changes[declared[following].span()] = ""
    pieces, end = [], 0
    for (begin, stop), new in sorted(changes.items()):
        pieces += [module[end:begin], new]
        end = stop
    return "".join(pieces) + module[end:]
