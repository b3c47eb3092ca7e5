"""Word errors of speech models: in integers and in float32, on clips whose text is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sw.compiler.errors import InputError
from sw.models.corpus import evaluation_texts
from sw.speech.audio import WINDOW, read_audio, to_rate
from sw.speech.synthesis import say

__all__ = ["Clip", "Score", "clips", "distance", "words"]

SPHINX = "usr/share/pocketsphinx/test/data"
ALSA = "usr/share/sounds/alsa"
INSTALL = "apt-get install pocketsphinx-testdata alsa-utils"
RAW = {"goforward": "go forward ten meters", "something": "go somewhere and do something"}
"""Texts of the recordings that Debian's package has without a transcript."""
SYNTHESISED = 6
VOICE, SPEED, PITCH = "en-us+f1", 150, 45
"""None of those that calibration hears. One without breath, whose noise is another each time."""


@dataclass(frozen=True)
class Clip:
    """samples: of 16 kHz. text: what is said, or None if nobody wrote it down."""

    name: str
    kind: str
    samples: np.ndarray
    text: str | None


def _transcripts(folder: Path, file: str) -> dict[str, str]:
    """`<s> words </s> (name)`, line by line."""
    found = {}
    for line in (folder / file).read_text().splitlines():
        text, _, name = line.rpartition("(")
        found[name.strip(" )")] = text.replace("<s>", "").replace("</s>", "").strip()
    return found


def _files(root: Path) -> list[tuple[str, Path, str | None]]:
    """(kind, file, text) of the recordings in Debian's packages. Raises `InputError`."""
    sphinx, alsa = root / SPHINX, root / ALSA
    if not (sphinx / "goforward.raw").exists() or not (alsa / "Front_Left.wav").exists():
        raise InputError(f"recordings are missing under {root}: {INSTALL}, or give --root")
    found: list[tuple[str, Path, str | None]] = []
    folders = (("librivox", "transcription"), ("cards", "cards.transcription"))
    for kind, transcription in folders:
        texts = _transcripts(sphinx / kind, transcription)
        files = sorted((sphinx / kind).glob("*.wav"))
        found += [(kind, path, texts[path.stem]) for path in files]
    for name in ("goforward", "numbers", "something"):
        found.append(("commands", sphinx / f"{name}.raw", RAW.get(name)))
    for path in sorted(alsa.glob("*.wav")):
        if path.stem != "Noise":
            found.append(("alsa", path, path.stem.replace("_", " ")))
    return found


def clips(root: str | Path = "/") -> list[Clip]:
    """Recordings of Debian's packages `pocketsphinx-testdata` and `alsa-utils`, and texts that
    eSpeak NG reads with a voice that calibration has not heard.

    root: where the packages are unpacked. Raises `InputError` where they are not.
    """
    found = [
        Clip(path.stem, kind, read_audio(path), text) for kind, path, text in _files(Path(root))
    ]
    texts = [" ".join(text.split()[:40]) for text in evaluation_texts("everyday-longest")]
    spoken, rate = say([(text, VOICE, SPEED, PITCH) for text in texts[:SYNTHESISED]])
    for number, (text, samples) in enumerate(zip(texts, spoken, strict=False)):
        part = to_rate(samples, rate)
        if len(part) <= WINDOW:
            found.append(Clip(f"spoken {number}", "eSpeak", part, text))
    return found


def words(text: str) -> list[str]:
    """Words of a text as Whisper's authors compare them: numbers, spellings and contractions
    alike, punctuation left out."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})(text).split()


def distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Words to insert, leave out or replace."""
    before = np.arange(len(wanted) + 1)
    for number, word in enumerate(found, 1):
        differs = np.array([word != other for other in wanted], int)
        now = np.minimum(before[1:] + 1, before[:-1] + differs)
        row = [number]
        for value in now:
            row.append(min(int(value), row[-1] + 1))
        before = np.array(row)
    return int(before[-1])


@dataclass(frozen=True)
class Score:
    """Words of some clips, and how many of them are wrong.

    words, errors: of clips whose text is known, with integers and in float. heard, differs: words
    that float writes down of all clips, and those that integers write otherwise.
    """

    clips: int
    words: int
    errors: int
    float_errors: int
    heard: int
    differs: int

    @classmethod
    def of(cls, clip: Clip, found: str, exact: str) -> Score:
        """Of one clip: what integers and float write down."""
        ours, theirs = words(found), words(exact)
        wanted = None if clip.text is None else words(clip.text)
        wrong = exactly = 0
        if wanted is not None:
            wrong, exactly = distance(ours, wanted), distance(theirs, wanted)
        differs = distance(ours, theirs)
        return cls(1, len(wanted or ()), wrong, exactly, len(theirs), differs)

    def __add__(self, other: Score) -> Score:
        return Score(**{name: value + vars(other)[name] for name, value in vars(self).items()})
