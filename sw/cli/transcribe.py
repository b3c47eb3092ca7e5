"""`weft transcribe`: speech to text on the accelerator, token by token."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
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
from sw.compiler.errors import InputError
from sw.decoding.self_test import check_threshold
from sw.driver import open_device
from sw.models.whisper import MODELS, Speech, load
from sw.speech.cascade import CASCADE, THRESHOLD, SpeechCascade
from sw.speech.listening import Transcribing, Window

__all__ = ["transcribe", "window_option"]

MHZ = 100
CASCADED = "cascade"
"""Instead of a model's name."""
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
    "--model",
    default="tiny.en",
    show_default=True,
    help=f"A Whisper: {', '.join(MODELS)}. {CASCADED}: {' before '.join(CASCADE)}, which hears the "
    "windows that the first one doubts.",
)
@click.option(
    "--threshold",
    type=float,
    help=f"Of {CASCADED}: mean probability of a token from which on the first one is believed; 0: "
    f"always, 1: never.  [default: {THRESHOLD}]",
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
    threshold: float | None,
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

    speeches = _models(model, threshold)
    for speech in speeches:
        speech.prompt(language)
        speech.rows(window_seconds)
    audio = {file: read_audio(file) for file in files}  # what is wrong comes before what takes long
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        transcribers = [Transcriber(each, config, step, window_seconds) for each in speeches]
        opened = open_device(device, config=transcribers[0].config, **options)
        try:
            listener = _listener(Listener.together(transcribers, opened), threshold)
        except BaseException:
            opened.close()
            raise
    segments: list[dict[str, Any]] = []
    cycles: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    with opened:
        for file, samples in audio.items():
            if len(audio) > 1:
                click.echo(f"{file}:", err=True)
            write = _segments if stamps else _windows
            for heard in write(listener, samples, language, tokens):
                cycles += heard.cycles
                spent.update(heard.spent)
                segments += ({"file": file, **part} for part in _parts(heard))
    account = _account(cycles, spent, sum(map(len, audio.values())) / RATE)
    _show(account, opened.has_cycles)
    asks = {"threshold": listener.threshold} if isinstance(listener, SpeechCascade) else {}
    write_json(json_file, {"model": model, **asks, "segments": segments, **account})


def _models(name: str, threshold: float | None) -> list[Speech]:
    """One, or those of the cascade, the small one first. Raises `InputError`."""
    if name != CASCADED:
        if threshold is not None:
            raise InputError(f"--threshold needs --model {CASCADED}: one model alone asks no other")
        return [load(name)]
    if threshold is not None:
        check_threshold(threshold)
    return [load(each) for each in CASCADE]


def _listener(listeners: Sequence[Transcribing], threshold: float | None) -> Transcribing:
    """The only one, or the cascade of two."""
    if len(listeners) == 1:
        return listeners[0]
    small, large = listeners
    return SpeechCascade(small, large, THRESHOLD if threshold is None else threshold)


def _time(seconds: float) -> str:
    return f"{int(seconds // 60):02}:{seconds % 60:05.2f}"


def _times(start: float, end: float) -> str:
    return f"[{_time(start)} --> {_time(end)}] "


def _segments(listener: Transcribing, samples: Any, language: str, tokens: int) -> Iterator[Window]:
    """Windows; their segments are written down when a window is done."""
    for heard in listener.transcribe(samples, language, tokens, stamps=True):
        for segment in heard.segments:
            text = heard.model.text(segment.tokens).strip()
            click.echo(_times(segment.start, segment.end) + text)
        if heard.done:
            yield heard


def _windows(listener: Transcribing, samples: Any, language: str, tokens: int) -> Iterator[Window]:
    """Windows; each is written down as its tokens come, with its times in front."""
    shown, attempt = "", None
    for heard in listener.transcribe(samples, language, tokens):
        if (heard.model, heard.attempts) != attempt:
            at, by = f"at temperature {heard.temperature}", f"by {heard.model.name}"
            how = at if heard.attempts > 1 else by
            again = f"\n(again, {how})\n" if attempt else ""
            sys.stdout.write(again + _times(heard.start, heard.end))
            shown, attempt = "", (heard.model, heard.attempts)
        text = heard.model.text(heard.tokens)
        if not text.endswith(MARK):  # of a letter that takes several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
        if heard.done:
            sys.stdout.write("\n")
            shown, attempt = "", None
            yield heard


def _parts(heard: Window) -> list[dict[str, Any]]:
    """Segments of a window for the file."""
    return [
        {
            "start": round(segment.start, 2),
            "end": round(segment.end, 2),
            "text": heard.model.text(segment.tokens).strip(),
            "model": heard.model.name,
            "tokens": segment.tokens,
            "mean_log_probability": heard.mean_log_probability,
            "temperature": heard.temperature,
        }
        for segment in heard.segments
    ]


def _account(cycles: Counter[str], spent: Counter[str], seconds: float) -> dict[str, Any]:
    """What it cost, by part and by model. seconds: of the audio."""
    total = sum(cycles.values())
    return {
        "seconds": seconds,
        "cycles": dict(cycles),
        "cycles_by_model": dict(spent),
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
    if len(account["cycles_by_model"]) > 1:
        for name, cycles in account["cycles_by_model"].items():
            table.add_row(f"of all: {name}", f"{cycles:,}", f"{cycles / total:.1%}")
    factor = account["predicted_real_time_factor_at_100_mhz"]
    table.add_row("all", f"{total:,}", "")
    table.add_row(f"time, of that of the audio, at {MHZ} MHz (predicted)", f"{factor:.3f}", "")
    show(table)
