"""`weft transcribe`: speech to text on the accelerator, token by token."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click
from rich.table import Table

from sw.cli.common import (
    OUTPUT_FILE,
    config_option,
    device_option,
    device_options,
    memory_options,
    steps,
    write_json,
)
from sw.cli.screen import show
from sw.driver import open_device
from sw.models.whisper import MODELS, load

__all__ = ["transcribe", "window_option"]

MHZ = 100
MARK = "\N{REPLACEMENT CHARACTER}"


window_option = click.option(
    "--window-seconds",
    default=30,
    type=click.IntRange(1, 30),
    show_default=True,
    help="Heard at once; Whisper was trained with 30, fewer take fewer cycles.",
)


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--model", default="tiny.en", show_default=True, help=f"A Whisper: {', '.join(MODELS)}."
)
@click.option(
    "--language", default="en", show_default=True, help="Of the speech, where the model has many."
)
@click.option(
    "--tokens",
    default=224,
    type=click.IntRange(min=1),
    show_default=True,
    help="Of a window, at most.",
)
@click.option(
    "--stamps/--no-stamps", default=True, show_default=True, help="A line for each segment."
)
@window_option
@memory_options
@config_option
@device_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write texts and cycles to this file.")
def transcribe(
    files: tuple[str, ...],
    model: str,
    language: str,
    tokens: int,
    stamps: bool,
    window_seconds: int,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """Write down what is said in FILES, with the times of its segments.

    Without them, windows of 30 seconds follow each other, and text appears token by token. WAV,
    FLAC, Ogg and MP3, any rate and number of channels; .raw is 16 bits at 16 kHz.
    """
    from sw.speech.audio import RATE, read_audio
    from sw.speech.listener import Listener
    from sw.speech.transcriber import Transcriber

    speech = load(model)
    speech.prompt(language)
    speech.rows(window_seconds)
    audio = {file: read_audio(file) for file in files}  # what is wrong comes before what takes long
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        transcriber = Transcriber(speech, config, step, window_seconds)
        opened = open_device(device, config=transcriber.config, **options)
        try:
            listener = Listener(transcriber, opened)
        except BaseException:
            opened.close()
            raise
    segments: list[dict[str, Any]] = []
    cycles: Counter[str] = Counter()
    with opened:
        for file, samples in audio.items():
            if len(audio) > 1:
                click.echo(f"{file}:", err=True)
            write = _segments if stamps else _windows
            for heard in write(listener, samples, language, tokens):
                cycles += heard.cycles
                segments += ({"file": file, **part} for part in _parts(listener, heard))
    account = _account(cycles, sum(map(len, audio.values())) / RATE)
    _show(account, opened.has_cycles)
    write_json(json_file, {"model": model, "segments": segments, **account})


def _time(seconds: float) -> str:
    return f"{int(seconds // 60):02}:{seconds % 60:05.2f}"


def _times(start: float, end: float) -> str:
    return f"[{_time(start)} --> {_time(end)}] "


def _segments(listener: Any, samples: Any, language: str, tokens: int) -> Iterator[Any]:
    """Windows; their segments are written down when a window is done."""
    for heard in listener.transcribe(samples, language, tokens, stamps=True):
        for segment in heard.segments:
            text = listener.model.text(segment.tokens).strip()
            click.echo(_times(segment.start, segment.end) + text)
        if heard.done:
            yield heard


def _windows(listener: Any, samples: Any, language: str, tokens: int) -> Iterator[Any]:
    """Windows; each is written down as its tokens come, with its times in front."""
    shown, attempts = "", 0
    for heard in listener.transcribe(samples, language, tokens):
        if heard.attempts != attempts:
            again = f"\n(again, at temperature {heard.temperature})\n" if attempts else ""
            sys.stdout.write(again + _times(heard.start, heard.end))
            shown, attempts = "", heard.attempts
        text = listener.model.text(heard.tokens)
        if not text.endswith(MARK):  # of a letter that takes several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
        if heard.done:
            sys.stdout.write("\n")
            shown, attempts = "", 0
            yield heard


def _parts(listener: Any, heard: Any) -> list[dict[str, Any]]:
    """Segments of a window for the file."""
    return [
        {
            "start": round(segment.start, 2),
            "end": round(segment.end, 2),
            "text": listener.model.text(segment.tokens).strip(),
            "tokens": segment.tokens,
            "mean_log_probability": heard.mean_log_probability,
            "temperature": heard.temperature,
        }
        for segment in heard.segments
    ]


def _account(cycles: Counter[str], seconds: float) -> dict[str, Any]:
    """What it cost. seconds: of the audio."""
    total = sum(cycles.values())
    return {
        "seconds": seconds,
        "cycles": dict(cycles),
        "predicted_real_time_factor_at_100_mhz": total / (MHZ * 1e6) / seconds,
    }


def _show(account: dict[str, Any], counted: bool) -> None:
    table = Table(title="Cycles" if counted else "Cycles, by the cost model")
    table.add_column("part")
    table.add_column("cycles", justify="right")
    table.add_column("share", justify="right")
    total = sum(account["cycles"].values())
    for part, cycles in account["cycles"].items():
        table.add_row(part, f"{cycles:,}", f"{cycles / total:.1%}")
    factor = account["predicted_real_time_factor_at_100_mhz"]
    table.add_row("all", f"{total:,}", "")
    table.add_row(f"time, of that of the audio, at {MHZ} MHz (predicted)", f"{factor:.3f}", "")
    show(table)
