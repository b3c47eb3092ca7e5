"""The rows of `weft bench decoders`: passes of language models, each a command of `weft bench`, and
what each has to reach; their part of docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.cache import ROOT
from sim.files import write_atomically
from sw.bench.tables import markdown
from sw.compiler.errors import CompileError

__all__ = ["DECODERS", "LOG", "ROWS", "DecoderRow", "decoder_lines", "load", "save"]

DECODERS = ROOT / "benchmarks" / "decoders.json"

TEXT = """\
Passes of language models on the same machine and memory, equal to golden in every byte that a pass
may write. "Memory" is what the pass must read (weights once, keys and values of all positions) /
(16 bytes x cycles), "array" the products of two bytes that it needs / (256 x cycles). "Reading"
passes have more of a prompt behind them and leave out the head; with it, its weights take as long
as the bus needs for them, which is what such a pass loses. `weft bench decoders` measures all of
it."""

LOG_TEXT = """\
A whole sequence of SmolLM2-135M-Instruct (`weft bench {command}`): after each pass all of the
sequence's memory, its caches among it, is compared with the golden model's."""


@dataclass(frozen=True)
class DecoderRow:
    """A command. share: least value of what is in `metric`. against: a command with whose cycles
    these are compared; most: largest quotient that is wanted, 0 for none."""

    command: str
    metric: str = ""
    share: float = 0.0
    against: str = ""
    most: float = 0.0

    def target(self) -> str:
        if self.most:
            return f"<= {self.most:.2f}x"
        return f">= {self.share:.1%} {METRICS[self.metric]}" if self.metric else ""


METRICS = {"bandwidth_share": "memory", "array_share": "array"}
WHOLE = "smollm2 --context 512"
LOG = (
    'smollm2 --prompt "The capital of Germany is Berlin, that of Italy is Rome, that of France is" '
    "--tokens 4"
)

ROWS = (
    DecoderRow(WHOLE, "bandwidth_share", 0.97),
    DecoderRow(f"{WHOLE} --rows 4", against=WHOLE, most=1.03),
    DecoderRow(f"{WHOLE} --rows 8", against=WHOLE, most=1.10),
    DecoderRow(f"{WHOLE} --bits 4", "bandwidth_share", 0.95, against=WHOLE),
    DecoderRow(f"{WHOLE} --bits 4 --rows 4", against=WHOLE),
    DecoderRow("decode --context 2048", "bandwidth_share", 0.965),
    DecoderRow("decode --context 512"),
    DecoderRow("decode --context 512 --rows 4", against="decode --context 512"),
    DecoderRow("decode --context 512 --rows 8", against="decode --context 512"),
    DecoderRow("decode --context 512 --bits 4", "bandwidth_share", 0.95, "decode --context 512"),
    DecoderRow("prefill --seq 128 --reading", "array_share", 0.98),
    DecoderRow("prefill --seq 128"),
)

Results = Mapping[str, dict[str, Any]]
"""Measurements by command; that of `LOG` has its passes."""


def load(path: Path = DECODERS) -> dict[str, dict[str, Any]]:
    """What was measured. Raises `CompileError` for another file."""
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise CompileError(f"{path} is no results file ({error}): delete it") from None


def save(results: Results, path: Path = DECODERS) -> None:
    """Write the rows there are, in their order."""
    known = [*(row.command for row in ROWS), LOG]
    kept = {command: results[command] for command in known if command in results}
    write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())


def missed(row: DecoderRow, results: Results) -> bool:
    """Whether a row that was measured does not reach its target."""
    result = results[row.command]
    if row.most and row.against in results:
        return result["cycles"] > row.most * results[row.against]["cycles"]
    return bool(row.metric) and result[row.metric] < row.share


def _cells(row: DecoderRow, results: Results) -> list[str]:
    result = results[row.command]
    found = row.target() + (" (missed)" if missed(row, results) else "")
    if row.against in results:
        quotient = f"{result['cycles'] / results[row.against]['cycles']:.3f}x"
        found = f"{quotient}, wanted {found}" if found else quotient
    error = result["estimated_cycles"] / result["cycles"] - 1
    return [
        f"`{row.command}`",
        found,
        f"{result['cycles']:,}" + ("" if result["bit_exact"] else " **wrong bytes**"),
        f"{error:+.1%}",
        f"{result['bandwidth_share']:.1%}",
        f"{result['array_share']:.1%}",
        f"{result['command_share']:.1%}",
    ]


def _cell(text: str) -> str:
    """Text of a token as Markdown's tables show it: a bar would end the cell."""
    return f"`{text!r}`".replace("|", "\\|") if text else ""


def decoder_lines(results: Results) -> list[str]:
    """Their part of the page; nothing without rows."""
    rows = [_cells(row, results) for row in ROWS if row.command in results]
    if not rows:
        return []
    header = ("`weft bench`", "wanted", "cycles", "predicted", "memory", "array", "commands")
    lines = ["## Language models", "", TEXT, "", *markdown(header, rows, left=2), ""]
    commands = (*(row.command for row in ROWS), LOG)
    left_out = [f"`{command}`" for command in commands if command not in results]
    if left_out:
        lines += [f"Not measured: {', '.join(left_out)}.", ""]
    if LOG in results:
        passes = (
            (
                f"{item['tokens']}",
                f"{item['position']}",
                f"{item['cycles']:,}",
                f"{item['bandwidth_share']:.1%}",
                "yes" if item["bit_exact"] else "**no**",
                _cell(item["text"]),
            )
            for item in results[LOG]["passes"]
        )
        header = ("tokens", "at", "cycles", "memory", "equal", "likeliest next")
        lines += [LOG_TEXT.format(command=LOG), "", *markdown(header, passes, left=0), ""]
    return lines
