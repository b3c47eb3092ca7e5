"""Command stream and registers as Markdown, from `hw.isa` and `hw.registers`.

`python -m sw.cli.isa_document` prints docs/isa.md; `weft export` writes the page of one
configuration beside its Verilog.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping

from hw import isa, registers
from hw.config import AcceleratorConfig
from sim.description import memories

__all__ = ["document"]


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return [*lines, ""]


def _enumeration(title: str, kind: type) -> list[str]:
    doc = " ".join((kind.__doc__ or "").split())
    if issubclass(kind, isa.Described):
        described = ((f"`{item.name}`", int(item), item.text) for item in kind)
        table = _table(("name", "value", "meaning"), described)
    else:
        rows = ((f"`{item.name}`", int(item)) for item in kind)  # type: ignore[attr-defined]
        table = _table(("name", "value"), rows)
    return [f"### {title}", "", doc, "", *table]


def _command(spec: isa.CommandSpec) -> list[str]:
    units = ", ".join(unit.name for unit in spec.units) or "the dispatcher itself"
    lines = [f"### {spec.opcode.name} ({int(spec.opcode)})", ""]
    lines += [f"{spec.summary} Executed by {units}.", ""]
    if spec.loops.strip():
        lines += ["```python", textwrap.dedent(spec.loops).strip("\n"), "```", ""]
    if spec.all_fields:
        rows = []
        for item in spec.all_fields:
            low = spec.offset_of(item.name)
            text = item.doc + (", not 0" if item.nonzero else "")
            kind = "signed" if item.signed else "unsigned"
            rows.append((f"`{item.name}`", f"{low}..{low + item.bits - 1}", kind, text))
        lines += _table(("field", "bits", "format", "meaning"), rows)
    return lines


def _header() -> list[tuple[str, str]]:
    """Bits of the header and what they are."""
    distance = isa.DISTANCE_BITS
    text = f"unit ({isa.WAIT_BITS - distance} bits), distance ({distance} bits)"
    parts = [(f"wait {i}: {text}", isa.WAIT_BITS) for i in range(isa.WAIT_SLOTS)]
    parts += [(f"`{item.name}`: {item.doc}", item.bits) for item in isa.HEADER]
    rows, low = [("0..7", "opcode")], 8
    for name, bits in parts:
        rows.append((f"{low}..{low + bits - 1}" if bits > 1 else str(low), name))
        low += bits
    return rows


def _configuration(config: AcceleratorConfig) -> list[str]:
    fields = {"name": config.name, **config.hardware()}
    rows = fields | {"fingerprint": f"0x{config.fingerprint():08X}"}
    sizes = ((f"`{memory.name}`", *size.values()) for memory, size in memories(config).items())
    return [
        "## Configuration",
        "",
        *_table(("field", "value"), ((f"`{name}`", value) for name, value in rows.items())),
        "### On-chip memories",
        "",
        "The pitch is what a word takes in DRAM, in bytes.",
        "",
        *_table(("memory", "words", "bits of a word", "pitch"), sizes),
    ]


def _counters(title: str, texts: Mapping[str, str], address: Callable[[str], int]) -> list[str]:
    rows = ((f"`{name}`", f"0x{address(name):03X}", text) for name, text in texts.items())
    return [f"### {title}", "", *_table(("counter", "byte address", "counts"), rows)]


def document(config: AcceleratorConfig | None = None) -> str:
    """The whole page; of one configuration with its sizes and fingerprint."""
    if config is None:
        title, origin = "The command stream", "by `make docs`; do not edit"
    else:
        title, origin = f"Weft, configuration {config.name}", "by `weft export`"
    lines = [
        f"# {title}",
        "",
        f"Generated from `hw/isa.py` and `hw/registers.py` {origin}.",
        "",
        *(_configuration(config) if config else []),
        *(["## Command stream", ""] if config else []),
        f"Version {isa.ISA_VERSION}. " + (isa.__doc__ or "").strip(),
        "",
        "## Header of every command",
        "",
        *_table(
            ("bits", "field"),
            _header(),
        ),
        "The named fields are 0 in commands that do not have them.",
        "",
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
        ("register", "byte address", "meaning"),
        ((f"`{item.name}`", f"0x{int(item):03X}", item.text) for item in registers.Register),
    )
    lines += _enumeration("States", registers.State)
    lines += _counters("Counters", registers.COUNTER_TEXTS, registers.counter_address)
    if config is None or config.sleep:
        texts, address = registers.ACTIVITY_TEXTS, registers.activity_address
        lines += _counters("Counters of activity, with `sleep`", texts, address)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
