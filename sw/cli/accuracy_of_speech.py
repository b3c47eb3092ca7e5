"""`weft accuracy speech`: what is written down in integers, against float32 and what was said."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

import click
from rich.table import Table

from sw.cli.common import json_option, steps, write_json
from sw.cli.screen import console, show
from sw.cli.transcribe import window_option

__all__ = ["speech"]


@click.command("speech")
@click.option(
    "--root",
    default="/",
    show_default=True,
    help="Where Debian's packages with recordings are unpacked.",
)
@click.option(
    "--model",
    "names",
    multiple=True,
    default=("tiny.en", "base"),
    show_default=True,
    help="A Whisper; may be given several times.",
)
@click.option(
    "--stamps/--no-stamps",
    default=True,
    show_default=True,
    help="Texts with time stamps, which are compared, too.",
)
@window_option
@json_option
def speech(
    names: tuple[str, ...], root: str, stamps: bool, window_seconds: int, json_file: str | None
) -> None:
    """Words that Whispers write down, and those that were said.

    Integers and float32 go through the same procedure. What was interrupted goes on.
    """
    from sw.bench.known_windows import KnownWindows
    from sw.bench.parting import Parting, parting
    from sw.bench.speech import Score, clips, words
    from sw.driver import open_device
    from sw.models.whisper import load
    from sw.speech.float_listener import FloatListener
    from sw.speech.listener import Listener
    from sw.speech.listening import Task
    from sw.speech.transcriber import Transcriber

    table = Table(title="Word errors: integers against float32")
    columns = "model", "clips", "", "words", "wrong", "in float", "heard", "differ", "Mcycles"
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "clips") else "right")
    figures: dict[str, dict] = {}
    different: list[tuple[str, ...]] = []
    partings: list[tuple[str, Parting]] = []
    models = [load(name) for name in names]
    for model in models:
        model.rows(window_seconds)
    with steps() as step:
        step("Reading the recordings")
        recordings = clips(root)
        for model in models:
            transcriber = Transcriber(model, step=step, seconds=window_seconds)
            scores: dict[str, Score] = defaultdict(Score)
            with open_device("golden", transcriber.config) as device:
                both = Listener(transcriber, device), FloatListener(model, window_seconds)
                listeners = [KnownWindows(each) for each in both]
                update = step(f"Whisper {model.name}: {len(recordings)} clips")
                for number, clip in enumerate(recordings):
                    update(number, len(recordings))
                    ours, theirs = (
                        [h for h in each.transcribe(clip.samples, stamps=stamps) if h.done]
                        for each in listeners
                    )
                    score, found, exact = Score.of(clip, model, ours, theirs)
                    scores[clip.kind] += score
                    if found != exact:
                        different.append((model.name, clip.name, found, exact))
                        parted = parting(both[1], clip, ours, theirs, Task(stamps=stamps))
                        if parted is not None and words(found) != words(exact):
                            partings.append((model.name, parted))
            scores["all"] = sum(scores.values(), Score())
            for kind, score in scores.items():
                table.add_row(model.name if kind == "librivox" else "", kind, *score.columns)
            figures[model.name] = {kind: asdict(score) for kind, score in scores.items()}
    show(table)
    for name, score in ((name, Score(**found["all"])) for name, found in figures.items()):
        if stamps:
            console.print(f"{name}: {score.about_stamps}", highlight=False)
    for name, clip, found, exact in different:
        console.print(f"[dim]{name}, {clip}:[/] {found} [dim]| float:[/] {exact}", highlight=False)
    for name, parted in partings:
        console.print(f"{name}, {parted}", highlight=False, markup=False)
    of_partings = [{"model": name, **asdict(parted)} for name, parted in partings]
    write_json(json_file, {"models": figures, "different": different, "partings": of_partings})
