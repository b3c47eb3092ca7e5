"""`weft transcribe`: speech to text on the accelerator, token by token."""

from __future__ import annotations

import sys
from collections import Counter
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

__all__ = ["transcribe"]

MHZ = 100
MARK = "\N{REPLACEMENT CHARACTER}"


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
    help="Of 30 seconds, at most.",
)
@memory_options
@config_option
@device_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write texts and cycles to this file.")
def transcribe(
    files: tuple[str, ...],
    model: str,
    language: str,
    tokens: int,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """Write down what is said in FILES, in windows of 30 seconds.

    WAV, FLAC, Ogg and MP3, any rate and number of channels; .raw is 16 bits at 16 kHz.
    """
    from sw.speech.audio import RATE, read_audio
    from sw.speech.listener import Listener
    from sw.speech.transcriber import Transcriber

    speech = load(model)
    speech.prompt(language)
    audio = {file: read_audio(file) for file in files}  # what is wrong comes before what takes long
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        transcriber = Transcriber(speech, config, step)
        opened = open_device(device, config=transcriber.config, **options)
        try:
            listener = Listener(transcriber, opened)
        except BaseException:
            opened.close()
            raise
    results: list[dict[str, Any]] = []
    with opened:
        for file, samples in audio.items():
            if len(audio) > 1:
                click.echo(f"{file}:", err=True)
            results += [
                {"file": file, **segment}
                for segment in _segments(listener, samples, language, tokens)
            ]
    cycles = sum((Counter(segment["cycles"]) for segment in results), Counter())
    account = _account(cycles, sum(map(len, audio.values())) / RATE)
    _show(account, opened.has_cycles)
    write_json(json_file, {"model": model, "segments": results, **account})


def _time(seconds: float) -> str:
    return f"{int(seconds // 60):02}:{seconds % 60:05.2f}"


def _segments(listener: Any, samples: Any, language: str, tokens: int) -> list[dict[str, Any]]:
    """Write down each window as its tokens come, with its times in front."""
    found, heard, shown = [], None, ""
    for now in listener.transcribe(samples, language, tokens):
        if now is not heard:
            if heard is not None:
                sys.stdout.write("\n")
            heard, shown = now, ""
            sys.stdout.write(f"[{_time(now.start)} --> {_time(now.end)}] ")
            found.append(now)
        text = listener.model.text(now.tokens)
        if not text.endswith(MARK):  # of a letter that takes several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
    sys.stdout.write("\n")
    return [
        {
            "start": item.start,
            "end": item.end,
            "text": listener.model.text(item.tokens).strip(),
            "tokens": item.tokens,
            "mean_log_probability": sum(item.log_probabilities) / max(1, len(item.tokens)),
            "cycles": dict(item.cycles),
        }
        for item in found
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
