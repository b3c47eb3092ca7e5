"""Writes docs/isa.md from `hw.isa` and `hw.registers`: `python -m sw.cli.isa_document`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from hw import isa, registers

__all__ = ["document"]


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


def _enumeration(title: str, kind: type) -> list[str]:
    doc = " ".join((kind.__doc__ or "").split())
    rows = ((f"`{item.name}`", int(item)) for item in kind)  # type: ignore[attr-defined]
    return [f"### {title}", "", doc, "", *_table(("name", "value"), rows)]


def _command(spec: isa.CommandSpec) -> list[str]:
    units = ", ".join(unit.name for unit in spec.units) or "the dispatcher itself"
    lines = [f"### {spec.opcode.name} ({int(spec.opcode)})", ""]
    lines += [f"{spec.summary} Executed by {units}.", ""]
    if spec.loops.strip():
        lines += ["```python", textwrap.dedent(spec.loops).strip("\n"), "```", ""]
    if spec.fields:
        rows = []
        for item in spec.fields:
            low = spec.offset_of(item.name)
            text = item.doc + (", not 0" if item.nonzero else "")
            kind = "signed" if item.signed else "unsigned"
            rows.append((f"`{item.name}`", f"{low}..{low + item.bits - 1}", kind, text))
        lines += _table(("field", "bits", "format", "meaning"), rows)
    return lines


def document() -> str:
    """The whole page as Markdown."""
    lines = [
        "# The command stream",
        "",
        "Generated from `hw/isa.py` and `hw/registers.py` by `make docs`; do not edit.",
        "",
        f"Version {isa.ISA_VERSION}. " + (isa.__doc__ or "").strip(),
        "",
        "## Header of every command",
        "",
        *_table(
            ("bits", "field"),
            [
                ("0..7", "opcode"),
                *(
                    (f"{8 + 16 * i}..{23 + 16 * i}", f"wait {i}: unit (4 bits), count (12 bits)")
                    for i in range(isa.WAIT_SLOTS)
                ),
                ("56..63", "reserved, 0"),
            ],
        ),
        "## Commands",
        "",
    ]
    for spec in isa.COMMANDS.values():
        lines += _command(spec)
    lines += ["## Enumerations", ""]
    for title, kind in (
        ("Units", isa.Unit),
        ("Memories", isa.Memory),
        ("Regions", isa.Region),
        ("Functions", isa.Function),
        ("Error codes", isa.ErrorCode),
    ):
        lines += _enumeration(title, kind)
    lines += ["## Registers", "", " ".join((registers.__doc__ or "").split()), ""]
    lines += _table(
        ("register", "byte address"),
        ((f"`{item.name}`", f"0x{int(item):03X}") for item in registers.Register),
    )
    lines += _enumeration("States", registers.State)
    lines += ["### Counters", ""]
    lines += _table(
        ("counter", "byte address"),
        ((f"`{name}`", f"0x{registers.counter_address(name):03X}") for name in registers.COUNTERS),
    )
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
