"""Output for people: on a terminal of any width, in a pipe, in a file.

On a terminal nothing is wider than the screen. In files and pipes, unless COLUMNS gives a width,
sentences break at `FILE_WIDTH` and tables are as wide as what is in them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import IO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

__all__ = ["FILE_WIDTH", "Screen", "console", "shorten", "show"]

FILE_WIDTH = 100
GAP = 2
"""Between two columns of a table."""


class Screen(Console):
    """A console that knows the width of what it writes to, where Rich takes any stream's and 80
    for TERM=dumb.

    has_edge: whether something may not be wider than `width`.
    """

    def _dimensions(self) -> tuple[int, int]:
        """(columns, lines), 0 for what is unknown."""
        try:
            found = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):  # no terminal, no file at all
            found = (0, 0)
        columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
        return (
            int(columns) if columns.isdigit() else found[0],
            int(lines) if lines.isdigit() else found[1],
        )

    @property
    def file(self) -> IO[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Standard output as it is now: beside a progress display it is Rich's stand-in, which
        prints above it. Rich would go past that, and the display over what it prints."""
        file = super().file
        beside = not self.stderr and file is getattr(sys.stdout, "rich_proxied_file", None)
        return sys.stdout if beside else file

    @property
    def has_edge(self) -> bool:
        return self._dimensions()[0] > 0

    @property
    def size(self) -> ConsoleDimensions:  # pyright: ignore[reportIncompatibleMethodOverride]
        columns, lines = self._dimensions()
        return ConsoleDimensions(columns or FILE_WIDTH, lines or 25)


console = Screen()


def shorten(names: Sequence[str], width: int) -> list[str]:
    """Names in at most `width` columns: those that are longer lose a part of their middle.

    A third of what is left is beginning, because the end of a module's name tells it from its
    neighbours; more or less of it where different names would become equal.
    """
    dots = "..." if console.options.ascii_only else "…"
    left = max(width - len(dots), 0)

    def cut(name: str, begin: int) -> str:
        if cell_len(name) <= width:
            return name
        return name[:begin] + dots + name[len(name) - left + begin :]

    for begin in sorted(range(left + 1), key=lambda begin: abs(begin - left // 3)):
        found = [cut(name, begin) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return [cut(name, left // 3) for name in names]


def _text(cell: object) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))


def _width(cells: Sequence[Text]) -> int:
    return max((cell_len(line) for cell in cells for line in cell.plain.split("\n")), default=0)


def _without_kind(name: Text) -> Text:
    """`attention.query (Linear)` without its last part."""
    end = re.search(r" \(\w+\)$", name.plain)
    return name[: end.start()] if end else name


def _names(names: list[Text], width: int) -> list[Text]:
    """Names of a column that fit: without kinds if that is enough, or shortened too."""
    if _width(names) > width:
        names = [_without_kind(name) for name in names]
    short = shorten([name.plain for name in names], width)
    return [Text(text, style=name.style) for text, name in zip(short, names, strict=True)]


def _parts(widths: Sequence[int], room: int) -> list[range]:
    """Columns 1, 2, .. of a table, in runs that fit into `room` beside column 0."""
    parts = [range(1, 1)]
    for number, width in enumerate(widths[1:], 1):
        used = sum(widths[i] + GAP for i in parts[-1])
        if parts[-1] and used + GAP + width > room:
            parts.append(range(number, number))
        parts[-1] = range(parts[-1].start, number + 1)
    return parts


def show(*tables: Table) -> None:
    """Print tables: a line a row, no cell cut but those of the first column, which holds names.

    Names lose their kind and then their middle where the screen is narrow, or wrap if their
    column says overflow="fold". Columns that have no place beside them go into another table
    below, names repeated; names give way to them down to the column's `min_width`, by default
    half the screen.
    """
    for number, table in enumerate(tables):
        if number:
            console.print()
        _show(table)


def _show(table: Table) -> None:
    cells = [[_text(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    widths = [_width(column) for column in cells]
    edge = console.width if console.has_edge else sum(widths) + GAP * len(widths)
    whole = _width([_without_kind(name) for name in cells[0]])
    least = min(whole, table.columns[0].min_width or edge // 2)
    if table.title:
        console.print(Text(str(table.title), style="bold"))
    parts = _parts(widths, edge - least)
    others = [sum(widths[i] + GAP for i in part) for part in parts]
    room = max(edge - max(others), 1)
    if table.columns[0].overflow != "fold":
        cells[0] = _names(cells[0], room)
    for part, beside in zip(parts, others, strict=True):
        shown = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - 1, 0, 0),  # and one of the box
            show_header=table.show_header,
            width=min(_width(cells[0]), room) + beside,
        )
        shown.add_column(cells[0][0])
        for i in part:
            shown.add_column(cells[i][0], justify=table.columns[i].justify, no_wrap=True)
        for number, row in enumerate(table.rows, 1):
            values = (cells[i][number] for i in (0, *part))
            shown.add_row(*values, style=row.style, end_section=row.end_section)
        if part.start > 1:
            console.print()
        console.print(shown, crop=False)
    if table.caption:
        console.print(Text(str(table.caption), style="dim"))
