"""Rows of language models: what is missed or wrong is said, and each is a command."""

from __future__ import annotations

import shlex

import pytest

from sw.bench.decoder_rows import LOG, ROWS, decoder_lines, load, save
from sw.cli.bench import bench
from sw.compiler.errors import CompileError


def made_up(cycles: int, share: float, **changes):
    return {
        "cycles": cycles,
        "estimated_cycles": cycles * 101 // 100,
        "bit_exact": True,
        "bandwidth_share": share,
        "array_share": share,
        "command_share": 0.01,
        **changes,
    }


def test_every_row_is_a_command():
    for command in (*(row.command for row in ROWS), LOG):
        name, *arguments = shlex.split(command)
        bench.commands[name].make_context(name, arguments)


def test_the_page(tmp_path):
    results = {row.command: made_up(10_000, 0.99) for row in ROWS}
    assert f"Not measured: `{LOG}`." in "\n".join(decoder_lines(results))
    results[LOG] = {"passes": []}
    text = "\n".join(decoder_lines(results))
    assert "missed" not in text and "wrong" not in text and "Not measured" not in text
    assert text.count("+1.0%") == len(ROWS) and text.count("1.000x") == sum(
        bool(row.against) for row in ROWS
    )
    alone, four = ROWS[0].command, ROWS[1].command
    results[four] = made_up(10_301, 0.99, bit_exact=False)
    results[alone]["bandwidth_share"] = 0.9699
    del results[ROWS[-1].command]
    results[LOG] = {
        "passes": [
            {
                "tokens": 8,
                "position": 1,
                "cycles": 77,
                "bandwidth_share": 0.5,
                "bit_exact": False,
                "text": " Pa|ris",
            }
        ]
    }
    text = "\n".join(decoder_lines(results))
    assert ">= 97.0% memory (missed)" in text
    assert "1.030x, wanted <= 1.03x (missed) | 10,301 **wrong bytes**" in text
    assert f"Not measured: `{ROWS[-1].command}`." in text
    assert "| 8 | 1 | 77 | 50.0% | **no** | `' Pa\\|ris'` |" in text
    assert decoder_lines({}) == []
    path = tmp_path / "decoders.json"
    save({**results, "gone": {}}, path)
    assert load(path) == results and load(tmp_path / "none") == {}
    path.write_text("[1")
    with pytest.raises(CompileError, match="is no results file"):
        load(path)
