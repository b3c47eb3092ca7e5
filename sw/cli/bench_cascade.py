"""`weft bench cascade`: pairs of programs, what share of the large one's cycles they take, and how
often they say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, config_option, steps, write_json
from sw.cli.screen import show
from sw.decoding.self_test import TESTS, check_agreement

__all__ = ["cascade"]

TEXT = "text"
ENCODERS = ("search", "neighbours", "tags", "tags-int4")
RTL_TOKENS = (16, 32)
"""Lengths at which encoders run on the RTL with `--device verilator`: the mean of its cycles, of
those of the cost model, scales those of all lengths."""


@click.command()
@click.option("--pair", multiple=True, type=click.Choice((TEXT, *ENCODERS)), help="These only.")
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
    help="Of each kind for the language model, at most.  [default: 5]",
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
@click.option("--picture", type=OUTPUT_FILE, help="Draw it there (.png).")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the measurement there.")
def cascade(
    pair: tuple[str, ...],
    agreements: tuple[float, ...],
    test: str,
    tokens: int,
    most: int | None,
    model: str | None,
    device: str,
    config: str,
    json_file: str | None,
    picture: str | None,
) -> None:
    """A small program that answers, and a large one where it doubts: cycles and agreement."""
    for agreement in agreements:
        check_agreement(agreement)
    rows: dict[str, dict[str, Any]] = {}
    with steps() as step:
        for name in pair or (TEXT, *ENCODERS):
            if name == TEXT:
                rows |= _text(model, config, agreements[0], test, tokens, most, device, step)
            elif (found := _encoders(name, config, agreements, device, step)) is not None:
                rows[name] = found
    show(_table(rows))
    write_json(
        json_file,
        {
            "workload": "cascade",
            "config": config,
            "agreements": list(agreements),
            "cycles_of": device,
            "pairs": rows,
        },
    )
    if picture is not None:
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
    from sw.bench.cascade import account, agreement_by_confidence, curve
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
        **account(questions, agreements[0]),
        "others": [account(questions, agreement) for agreement in agreements[1:]],
        "by_confidence": agreement_by_confidence(questions),
        "curve": curve(questions),
    }


def _text(
    path: str | None,
    config: str,
    agreement: float,
    test: str,
    tokens: int,
    most: int | None,
    device: str,
    step: Callable[[str], Any],
) -> dict[str, dict[str, Any]]:
    """Rows of the language model with and without drafts, of all kinds of prompts and each."""
    from sw.bench.cascade import Questions, agreement_by_confidence, curve
    from sw.bench.cascade_text import PassLog, measure_answer, questions_of, summary
    from sw.bench.speculation import KINDS, PassCycles, measure_rtl, prompts_of
    from sw.cli.cascading import ANSWER, calibration_prompts, observed
    from sw.decoding.cascade import Cascade
    from sw.models.generator import Generator
    from sw.models.language_model import LanguageModel

    given = LanguageModel(path) if path else None
    generators = [Generator(config, step=step, model=given, bits=bits) for bits in (4, 8)]
    language = generators[1].model
    ends = language.checkpoint.ends
    with generators[1].open("golden") as opened:
        programs = [generator.program() for generator in generators]
        measured = [
            measure_rtl(program, step)[0] if device == "verilator" else PassCycles(program, {})
            for program in programs
        ]
        small, large = opened.load_decoders(*programs)
        context = min(program.context for program in programs)
        known = observed(small, large, calibration_prompts(language, context), ends, ANSWER, step)
        threshold = known.threshold(test, agreement)
        logs = [PassLog(*pair) for pair in zip((small, large), measured, strict=True)]
        both = Cascade([small, large], test, threshold)
        found: dict[str, list[dict[str, Any]]] = {}
        for kind in KINDS:
            update = step(f"Prompts: {kind}")
            prompts = prompts_of(kind)[1::2][:most]
            found[kind] = []
            for number, prompt in enumerate(prompts):
                ids = language.prompt([{"role": "user", "content": prompt}])
                if len(ids) < context:
                    room = min(tokens, context - len(ids))
                    found[kind].append(measure_answer(both, logs, ids, ends, room))
                update(number + 1, len(prompts))
    every = [result for results in found.values() for result in results]
    questions: Questions = questions_of(known, test)
    rows: dict[str, dict[str, Any]] = {}
    for mode, name in (("plain", TEXT), ("drafts", f"{TEXT} with drafts")):
        rows[name] = {
            "small": f"{language.name} 4 bits",
            "large": "8 bits",
            "task": name,
            "wanted": agreement,
            "threshold": threshold,
            "alone": float(known.right.mean()),
            "calibrated_on": len(known.right),
            **summary(every, mode),
            "kinds": {kind: summary(each, mode) for kind, each in found.items() if each},
        }
    rows[TEXT] |= {"by_confidence": agreement_by_confidence(questions), "curve": curve(questions)}
    return rows


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
