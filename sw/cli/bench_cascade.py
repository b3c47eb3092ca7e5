"""`weft bench cascade`: pairs of programs, what share of the large one's cycles they take, and how
often they say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, PICTURE_FILE, config_option, steps, write_json
from sw.cli.screen import show
from sw.compiler.errors import InputError
from sw.decoding.self_test import TESTS, check_agreement

__all__ = ["cascade"]

SPEECH = "speech"
TEXT, ANSWERS = LANGUAGES = ("text", "answers")
ENCODERS = (
    *("search", "neighbours", "tags", "tags-int4"),
    *("search-layers", "neighbours-layers"),
    *("search-int16", "neighbours-int16", "tags-int16"),
)
RTL_TOKENS = (16, 32)
"""Lengths at which encoders run on the RTL with `--device verilator`: the mean of its cycles, of
those of the cost model, scales those of all lengths."""


@click.command()
@click.option(
    "--pair", multiple=True, type=click.Choice((*LANGUAGES, *ENCODERS, SPEECH)), help="These only."
)
@click.option(
    "--root",
    default="/",
    show_default=True,
    help="Where Debian's packages with recordings are unpacked, for `speech`.",
)
@click.option(
    "--agreement",
    "agreements",
    multiple=True,
    type=float,
    default=(0.99, 0.995),
    show_default=True,
    help="Share of answers that shall be the large program's; may be given again, the language "
    "model runs with the first.",
)
@click.option(
    "--self-test",
    "test",
    type=click.Choice([*TESTS]),
    default="margin",
    show_default=True,
    help="Of the language model; encoders go by margins.",
)
@click.option(
    "--tokens",
    default=128,
    type=click.IntRange(min=2),
    show_default=True,
    help="Of the language model's answers, at most.",
)
@click.option(
    "--prompts",
    "most",
    type=click.IntRange(min=1),
    help="Of each kind for the language model, at most; up to 5 need half of the calibration."
    "  [default: 10, all of them]",
)
@click.option(
    "--questions", is_flag=True, help="Print the short questions of `answers`, and that is all."
)
@click.option("--model", help="Another language model, as for `weft generate`.")
@click.option(
    "--device",
    default="golden",
    type=click.Choice(["golden", "verilator"]),
    show_default=True,
    help="Where cycles come from: the cost model, or the RTL: passes of each size (half an hour); "
    "encoders run at two lengths, which scale those of all. Answers are the golden model's.",
)
@config_option
@click.option("--picture", type=PICTURE_FILE, help="Draw it there (.png).")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the measurement there.")
def cascade(
    pair: tuple[str, ...],
    root: str,
    agreements: tuple[float, ...],
    test: str,
    tokens: int,
    most: int | None,
    questions: bool,
    model: str | None,
    device: str,
    config: str,
    json_file: str | None,
    picture: str | None,
) -> None:
    """A small program that answers, and a large one where it doubts: cycles and agreement."""
    if questions:
        from sw.bench.speculation import SHORT, prompts_of

        click.echo("\n".join(prompts_of(SHORT)))
        return
    for agreement in agreements:
        check_agreement(agreement)
    rows: dict[str, dict[str, Any]] = {}
    with steps() as step:
        names = pair or (*LANGUAGES, *ENCODERS)  # speech wants recordings, and has its own table
        if picture is not None and set(names) == {SPEECH}:
            raise InputError("--picture draws the other pairs: of speech there is none")
        if set(names) & set(LANGUAGES):
            from sw.cli.bench_cascade_text import answer_row, languages, text_rows

            with languages(model, config, device, step) as both:
                if TEXT in names:
                    rows |= text_rows(both, agreements[0], test, tokens, most, step)
                if ANSWERS in names:
                    rows[ANSWERS] = answer_row(both, agreements, test, step)
        for name in names:
            if name in ENCODERS:
                found = _encoders(name, config, agreements, device, step)
                rows |= {} if found is None else {name: found}
        spoken: dict[str, dict[str, Any]] = {}
        if SPEECH in names:
            from sw.cli.bench_cascade_speech import speech_row

            spoken[SPEECH] = speech_row(root, config, step)
    if rows:
        show(_table(rows))
    for row in spoken.values():
        from sw.cli.bench_cascade_speech import speech_table

        show(speech_table(row))
    write_json(
        json_file,
        {
            "workload": "cascade",
            "config": config,
            "agreements": list(agreements),
            "cycles_of": device,
            "pairs": rows | spoken,
        },
    )
    if picture is not None and rows:
        from sw.bench.cascade_picture import draw_cascade

        draw_cascade(Path(picture), rows, agreements[0])


def _encoders(
    name: str,
    config: str,
    agreements: tuple[float, ...],
    device: str,
    step: Callable[[str], Any],
) -> dict[str, Any] | None:
    """A row of the table; None where the model's package is missing."""
    from sw.bench.cascade import figures
    from sw.bench.cascade_encoders import PAIRS, measure_rtl

    pair = PAIRS[name]
    try:
        small, large = pair.make(config, step)
        step(f"{pair.small} before {pair.large}: {pair.task}")
        questions = pair.ask(small, large)
    except FileNotFoundError as error:
        click.echo(f"{name} is left out: {error}", err=True)
        return None
    rtl = {}
    if device == "verilator":
        runs = [[measure_rtl(e, n, step) for n in RTL_TOKENS] for e in (small, large)]
        rtl["rtl"] = [run for both in runs for run in both]
        if not all(run["bit_exact"] for run in rtl["rtl"]):
            raise SystemExit(2)
        quotients = ([run["cycles"] / run["estimated_cycles"] for run in both] for both in runs)
        questions = questions.scaled(*(sum(both) / len(both) for both in quotients))
    return {
        **rtl,
        "small": pair.small,
        "large": pair.large,
        "task": pair.task,
        **figures(questions, agreements),
    }


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Cascades")
    for name in ("small program", "before", "task"):
        table.add_column(name)
    names = ("answers", "small alone", "wanted", "threshold", "asked", "agreement", "cycles")
    for name in names:
        table.add_column(name, justify="right")
    for row in rows.values():
        table.add_row(row["small"], row["large"], row["task"], *_cells(row))
        for kind, part in row.get("kinds", {}).items():
            table.add_row("", "", f"  {kind}", *_cells(part))
        for part in row.get("others", ()):
            table.add_row("", "", "", *_cells(part))
    return table


def _cells(part: dict[str, Any]) -> list[str]:
    def share(name: str, form: str) -> str:
        return format(part[name], form) if name in part else ""

    return [
        share("answers", ","),
        share("alone", ".1%"),
        share("wanted", ".1%"),
        share("threshold", ".3f"),
        share("doubted", ".1%"),
        share("agreement", ".1%"),
        share("cycles_ratio", ".3f"),
    ]
