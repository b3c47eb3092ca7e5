"""Word errors of speech models: in integers and in float32, on clips whose text is known."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sw.compiler.errors import InputError
from sw.models.corpus import evaluation_texts
from sw.models.whisper import Speech
from sw.speech.audio import RATE, WINDOW, read_audio, to_rate
from sw.speech.synthesis import say
from sw.speech.writing import Heard

__all__ = [
    "PROMPTS",
    "PROMPT_TEXTS",
    "SPOKEN",
    "Clip",
    "Score",
    "clips",
    "distance",
    "prompts",
    "words",
]

SPHINX = "usr/share/pocketsphinx/test/data"
ALSA = "usr/share/sounds/alsa"
PROMPTS = "usr/share/asterisk/sounds/en_US_f_Allison"
PROMPT_TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
PROMPT_SECONDS = (10, 30)
"""Of the telephone system's prompts that are taken: all of this length, but for those below."""
NO_WORDS = "[(#*"
"""In the texts of prompts that are noises, or whose signs are read out."""
INSTALL = (
    "apt-get install pocketsphinx-testdata alsa-utils asterisk-core-sounds-en "
    "asterisk-core-sounds-en-wav"
)
RAW = {"goforward": "go forward ten meters", "something": "go somewhere and do something"}
"""Texts of the recordings that Debian's package has without a transcript."""
SYNTHESISED, SPOKEN = 6, "eSpeak"
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


def prompts(root: Path) -> list[Clip]:
    """What a voice says on the telephone, 8 kHz, of `PROMPT_SECONDS`. Raises `InputError`."""
    if not (root / PROMPT_TEXTS).exists() or not (root / PROMPTS).exists():
        raise InputError(f"prompts of asterisk are missing under {root}: {INSTALL}, or give --root")
    lines = gzip.decompress((root / PROMPT_TEXTS).read_bytes()).decode().splitlines()
    found = []
    for name, _, text in sorted(line.partition(": ") for line in lines):
        path = root / PROMPTS / f"{name}.wav"
        if not path.exists() or set(NO_WORDS) & set(text):
            continue
        samples = read_audio(path)
        if PROMPT_SECONDS[0] * RATE <= len(samples) <= PROMPT_SECONDS[1] * RATE:
            found.append(Clip(name, "telephone", samples, text.strip()))
    return found


def clips(root: str | Path = "/") -> list[Clip]:
    """Recordings of Debian's packages `pocketsphinx-testdata`, `alsa-utils` and
    `asterisk-core-sounds-en`, and texts that eSpeak NG reads with a voice that calibration has not
    heard.

    root: where the packages are unpacked. Raises `InputError` where they are not.
    """
    found = [
        Clip(path.stem, kind, read_audio(path), text) for kind, path, text in _files(Path(root))
    ]
    found += prompts(Path(root))
    texts = [" ".join(text.split()[:40]) for text in evaluation_texts("everyday-longest")]
    spoken, rate = say([(text, VOICE, SPEED, PITCH) for text in texts[:SYNTHESISED]])
    for number, (text, samples) in enumerate(zip(texts, spoken, strict=False)):
        part = to_rate(samples, rate)
        if len(part) <= WINDOW:
            found.append(Clip(f"spoken {number}", SPOKEN, part, text))
    return found


@functools.cache
def _normalizer() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def words(text: str) -> list[str]:
    """Words of a text as Whisper's authors compare them: numbers, spellings and contractions
    alike, punctuation left out."""
    return _normalizer()(text).split()


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
    that float writes down of all clips, and those that integers write otherwise. again,
    float_again: texts that were written more than once. split: clips with other segments than in
    float; stamps: of all others; moved: those that are elsewhere in integers, seconds: by how much
    together. guessed: choices for which the eight likeliest tokens were not
    enough. cycles: of the integers, by the cost model.
    """

    clips: int = 0
    words: int = 0
    errors: int = 0
    float_errors: int = 0
    heard: int = 0
    differs: int = 0
    again: int = 0
    float_again: int = 0
    stamps: int = 0
    moved: int = 0
    seconds: float = 0.0
    split: int = 0
    guessed: int = 0
    cycles: int = 0

    @classmethod
    def of(
        cls, clip: Clip, model: Speech, ours: Sequence[Heard], theirs: Sequence[Heard]
    ) -> tuple[Score, str, str]:
        """Of one clip: what integers and float write down; and both texts."""
        segments = [[s for heard in each for s in heard.segments] for each in (ours, theirs)]
        texts = [" ".join(model.text(s.tokens).strip() for s in each) for each in segments]
        found, exact = map(words, texts)
        wanted = None if clip.text is None else words(clip.text)
        ends = [np.array([(s.start, s.end) for s in each]).ravel() for each in segments]
        alike = ends[0].shape == ends[1].shape
        off = np.abs(ends[0] - ends[1]).round(3) if alike else np.zeros(0)
        score = cls(
            clips=1,
            words=len(wanted or ()),
            errors=distance(found, wanted) if wanted else 0,
            float_errors=distance(exact, wanted) if wanted else 0,
            heard=len(exact),
            differs=distance(found, exact),
            again=sum(heard.attempts > 1 for heard in ours),
            float_again=sum(heard.attempts > 1 for heard in theirs),
            stamps=len(ends[1]) if alike else 0,
            moved=int((off > 0).sum()),
            seconds=float(off.sum()),
            split=int(not alike),
            guessed=sum(heard.guessed for heard in ours),
            cycles=sum(sum(heard.cycles.values()) for heard in ours),
        )
        return score, texts[0], texts[1]

    @property
    def columns(self) -> list[str]:
        """Cells of the table: clips to words that differ, and millions of cycles."""
        counts = self.clips, self.words, self.errors, self.float_errors, self.heard, self.differs
        return [*map(str, counts), f"{self.cycles / 1e6:,.0f}"]

    @property
    def about_stamps(self) -> str:
        """A line."""
        return (
            f"{self.moved} of {self.stamps} time stamps differ, by {self.seconds:.2f} s together; "
            f"{self.split} clips in other segments; {self.guessed} choices guessed"
        )

    def __add__(self, other: Score) -> Score:
        return Score(**{name: value + vars(other)[name] for name, value in vars(self).items()})
