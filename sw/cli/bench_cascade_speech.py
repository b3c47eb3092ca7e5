"""The rows of `weft bench cascade --pair speech`: a small Whisper before a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from sw.bench.cascade_speech import Outcome, figures
from sw.bench.known_windows import KnownWindows
from sw.bench.speech import SPOKEN, clips
from sw.driver import open_device
from sw.models.whisper import load
from sw.speech.cascade import CASCADE
from sw.speech.listener import Listener
from sw.speech.transcriber import Transcriber

__all__ = ["MORE", "speech_row", "speech_table"]

MORE = 0.005
"""Words that a cascade may have wrong beyond those of the large model, of all."""


def speech_row(root: str, config: str, step: Callable[[str], Any]) -> dict[str, Any]:
    """Cycles by the cost model, texts of the golden model. Of people's voices: of a machine's, the
    large model hears less than the small one, and so would hide what it is asked for."""
    step("Reading the recordings")
    recordings = [clip for clip in clips(root) if clip.kind != SPOKEN]
    transcribers = [Transcriber(load(name), config, step) for name in CASCADE]
    with open_device("golden", transcribers[0].config) as device:
        small, large = map(KnownWindows, Listener.together(transcribers, device))
        step(f"Whisper {CASCADE[0]} before {CASCADE[1]}: {len(recordings)} clips")
        return {
            "small": CASCADE[0],
            "large": CASCADE[1],
            **figures(recordings, small, large, MORE),
        }


def speech_table(row: dict[str, Any]) -> Table:
    """Kinds of clips, and all."""
    table = Table(title=f"Whisper {row['small']} before {row['large']}: wrong words")
    columns = "clips", "words", row["small"], row["large"], "cascade", "windows", "asked", "cycles"
    for column in columns:
        table.add_column(column, justify="left" if column == "clips" else "right")
    for kind, each in row["kinds"].items():
        small, large, both = (Outcome(**each[name]) for name in ("small", "large", "cascade"))
        errors = (str(found.errors) for found in (small, large, both))
        ratio = f"{both.cycles / large.cycles:.3f}"
        table.add_row(kind, str(large.words), *errors, str(both.windows), str(both.asked), ratio)
    halves = ", ".join(f"{value:.3f}" for value in row["thresholds"])
    table.caption = f"thresholds of the halves {halves}; of all clips {row['threshold']:.3f}"
    return table
