"""Tables and names on screens of several widths, in files, and where a terminal is none."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import termios

import pytest
from rich.table import Table
from rich.text import Text

from sw.cli.common import steps
from sw.cli.screen import FILE_WIDTH, Screen, console, shorten, show
from tests.sw.cli.terminal import Terminal

NAMES = [
    f"model.decoder.layers.{i}.cross_attention.{part} (Linear)" for i in (0, 1) for part in "qk"
]
NUMBERS = ["1,234,567", "89.25%", "12,345.6 KiB x2.25", "987,654,321", "0.99871"]


def table() -> Table:
    shown = Table(
        "name", title="A title that is rather long: it has more than sixty columns, or so"
    )
    for number in NUMBERS:
        shown.add_column(f"a {number[:3]}", justify="right")
    for name in NAMES:
        shown.add_row(name, *NUMBERS)
    return shown


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_widths(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    show(table())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    for number in NUMBERS:
        assert sum(number in line for line in lines) == len(NAMES), number
    names = {line.partition("  ")[0] for line in lines if "attention" in line}
    assert len(names) == len(NAMES), "two names look alike"


def test_names_lose_their_kind_before_their_middle(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    shown = Table("name", "number")
    shown.add_row("encoder.layer.attention.output.dense_of_many (Linear)", "1,234")
    show(shown)
    out = capsys.readouterr().out
    assert "encoder.layer.attention.output.dense_of_many  " in out and "…" not in out


def test_shorten():
    name = "encoder.layer.0.attention.self.query"
    assert shorten([name], len(name)) == [name]
    for width in range(3, len(name)):
        (short,) = shorten([name], width)
        begin, end = short.split("…")
        assert len(short) == width and name.startswith(begin) and name.endswith(end)
        assert len(begin) <= len(end)


def test_names_stay_different():
    for places in ((0, 1), (10, 11), ("first", "other")):
        names = [f"model.{place}.attention.self.{part}" for place in places for part in "qk"]
        assert len(set(shorten(names, 26))) == 4


def test_a_file_has_all_of_it(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    show(table())
    console.print("[bold red]word[/] " * 60)
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert any(name in line and all(n in line for n in NUMBERS) for line in lines), name
    assert not any("\x1b" in line for line in lines)
    assert max(len(line) for line in lines if "word" in line) <= FILE_WIDTH


def test_cells_are_no_markup_unless_meant(monkeypatch, capsys):
    shown = Table("name", "number")
    shown.add_row(Text("a [/b] text"), "[bold]1[/]")
    show(shown)
    assert "a [/b] text  1" in " ".join(capsys.readouterr().out.split(" ")).replace("   ", "  ")


@pytest.mark.parametrize("kind", ["xterm", "dumb", "unknown"])
@pytest.mark.parametrize("columns", [60, 132])
def test_width_of_a_terminal(monkeypatch, kind, columns):
    """Rich takes 80 columns for TERM=dumb."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", kind)
    main, line = os.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(main), os.fdopen(line, "w") as file:
        assert Screen(file=file).width == columns
        monkeypatch.setenv("COLUMNS", "70")
        assert Screen(file=file).width == 70


def test_no_colour(monkeypatch, terminal):
    """TERM=dumb: no codes at all."""

    def written() -> str:
        Screen(file=terminal).print("[red]text[/] 12", style="bold")
        return terminal.getvalue().splitlines()[-1]

    assert "\x1b[1;31mtext" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1mtext" in written()
    monkeypatch.setenv("TERM", "dumb")
    assert written() == "text 12"


def test_without_unicode(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "60")
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        show(table())
    assert "..." in (tmp_path / "out").read_text()


def test_output_beside_progress_goes_where_it_belongs(monkeypatch, terminal, tmp_path):
    """Progress on a terminal takes nothing from standard output in a file."""
    monkeypatch.setattr(sys, "stderr", terminal)
    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with steps() as step:
            step("Working")
            console.print("a result")
    assert (tmp_path / "out").read_text() == "a result\n"
    assert "Working" in terminal.getvalue() and "a result" not in terminal.getvalue()


def test_output_above_progress_stays(monkeypatch, terminal):
    """On a line of its own, where the progress that was there has been erased."""
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    with steps() as step:
        step("Working")
        console.print("a result")
    assert re.search(r"(\n|\x1b\[2K)a result\n", terminal.getvalue()), terminal.getvalue()


def test_a_dumb_terminal_is_told_what_goes_on(monkeypatch, terminal):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", terminal)
    with steps() as step:
        step("Working")
        assert terminal.getvalue() == "- Working\n"
