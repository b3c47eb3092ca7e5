"""`weft --help` on screens of several widths."""

from __future__ import annotations

import re

import pytest

from sw.cli.bench import bench
from sw.cli.main import cli


def test_sections(weft):
    out = weft("--help").out
    titles = re.findall(r"^(\w+):$", out, re.MULTILINE)
    assert titles == ["Options", "Run", "Compile", "Measure", "Build"]
    assert re.search(r"^Run:\n  demo .*\n  embed ", out, re.MULTILINE)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(("group", "arguments"), [(cli, []), (bench, ["bench"])])
def test_every_command_with_its_whole_summary(weft, monkeypatch, columns, group, arguments):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = weft(*arguments, "--help").out
    assert max(map(len, out.splitlines())) <= columns
    assert "..." not in out.replace("[ARGS]...", "")
    letters = "".join(out.split())  # lines break after hyphens too
    for name, command in group.commands.items():
        assert len(re.findall(rf"^  {name} ", out, re.MULTILINE)) == 1, name
        assert "".join(command.get_short_help_str(1000).split()) in letters, name
