"""`weft accuracy speech`: what is written down in integers, against float32 and what was said."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

import click
from rich.table import Table

from sw.cli.common import json_option, steps, write_json
from sw.cli.screen import console, show

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
@json_option
def speech(names: tuple[str, ...], root: str, json_file: str | None) -> None:
    """Words that Whispers write down, and those that were said."""
    from sw.bench.speech import Score, clips
    from sw.driver import open_device
    from sw.models.whisper import load
    from sw.speech.audio import spectrogram
    from sw.speech.listener import Listener
    from sw.speech.transcriber import Transcriber

    table = Table(title="Word errors: integers against float32")
    for column in ("model", "clips", "", "words", "wrong", "in float", "heard", "differ"):
        table.add_column(column, justify="left" if column in ("model", "clips") else "right")
    figures: dict[str, dict] = {}
    different: list[tuple[str, ...]] = []
    with steps() as step:
        step("Reading the recordings")
        recordings = clips(root)
        for name in names:
            model = load(name)
            transcriber = Transcriber(model, step=step)
            scores: dict[str, Score] = defaultdict(lambda: Score(0, 0, 0, 0, 0, 0))
            with open_device("golden", transcriber.config) as device:
                listener = Listener(transcriber, device)
                update = step(f"Whisper {name}: {len(recordings)} clips")
                for number, clip in enumerate(recordings):
                    update(number, len(recordings))
                    *_, heard = listener.transcribe(clip.samples)
                    found = model.text(heard.tokens)
                    exact = model.text(model.float_tokens(spectrogram(clip.samples)))
                    scores[clip.kind] += Score.of(clip, found, exact)
                    if found != exact:
                        different.append((name, clip.name, found.strip(), exact.strip()))
            total = sum(scores.values(), Score(0, 0, 0, 0, 0, 0))
            for kind, score in {**scores, "all": total}.items():
                numbers = list(map(str, asdict(score).values()))
                table.add_row(name if kind == "librivox" else "", kind, *numbers)
            figures[name] = {k: asdict(s) for k, s in {**scores, "all": total}.items()}
    show(table)
    for name, clip, found, exact in different:
        console.print(f"[dim]{name}, {clip}:[/] {found} [dim]| float:[/] {exact}", highlight=False)
    write_json(json_file, {"models": figures, "different": different})
