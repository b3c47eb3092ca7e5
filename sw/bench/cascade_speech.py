"""What a cascade of speech models saves: word errors and cycles, on clips whose text is known."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sw.bench.speech import Clip, distance, words
from sw.speech.cascade import SpeechCascade, confidence
from sw.speech.listening import Transcribing, Window

__all__ = ["Outcome", "calibrated", "figures", "heard", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """Of some clips. words: that are said, where somebody wrote them down; errors: in what is
    heard of them. cycles: of all models. windows: heard; asked: that the last model heard."""

    words: int = 0
    errors: int = 0
    cycles: int = 0
    windows: int = 0
    asked: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(*map(operator.add, vars(self).values(), vars(other).values()))


def heard(clip: Clip, listener: Transcribing) -> list[Window]:
    """Windows of a clip, with time stamps."""
    return [window for window in listener.transcribe(clip.samples, stamps=True) if window.done]


def outcome(clips: Sequence[Clip], listener: Transcribing) -> Outcome:
    """What a listener makes of clips."""
    return sum((_of(clip, heard(clip, listener), listener) for clip in clips), Outcome())


def _of(clip: Clip, windows: Sequence[Window], listener: Transcribing) -> Outcome:
    wanted = [] if clip.text is None else words(clip.text)
    text = " ".join(w.model.text(s.tokens).strip() for w in windows for s in w.segments)
    return Outcome(
        words=len(wanted),
        errors=distance(words(text), wanted) if wanted else 0,
        cycles=sum(sum(window.spent.values()) for window in windows),
        windows=len(windows),
        asked=sum(window.model is listener.models[-1] for window in windows),
    )


def calibrated(
    clips: Sequence[Clip], small: Transcribing, large: Transcribing, more: float
) -> float:
    """The least threshold with which a cascade is wrong in no more words than the large model, but
    for a share `more` of all. As in `sw.decoding.self_test.calibrate`, one word more than was
    seen is taken for wrong."""
    first = SpeechCascade(small, large, np.nextafter(0, 1))  # asks where a text is no good
    sure = {confidence(w) for c in clips for w in heard(c, first) if w.model is small.models[0]}
    alone = outcome(clips, large)
    for threshold in (0.0, *(float(np.nextafter(value, 1)) for value in sorted({0.0, *sure}))):
        found = outcome(clips, SpeechCascade(small, large, min(threshold, 1.0)))
        if found.errors + 1 <= alone.errors + more * alone.words:
            return min(threshold, 1.0)
    return 1.0


def figures(
    clips: Sequence[Clip], small: Transcribing, large: Transcribing, more: float
) -> dict[str, Any]:
    """A cascade that is calibrated on one half of clips and measured on the other, and the other
    way round. `kinds`: by kind, `all` the last, outcomes of `small`, `large` and `cascade`.
    `thresholds`: of the halves; `threshold`: what all clips give together. `curve`: (threshold,
    errors, cycles / those of the large model) of all clips."""
    parts = clips[0::2], clips[1::2]
    thresholds = [calibrated(part, small, large, more) for part in parts]
    cascades = [SpeechCascade(small, large, threshold) for threshold in thresholds[::-1]]
    kinds: dict[str, dict[str, Outcome]] = {}
    for kind in dict.fromkeys(clip.kind for clip in clips):
        of_kind = [[clip for clip in part if clip.kind == kind] for part in parts]
        both = [outcome(part, c) for part, c in zip(of_kind, cascades, strict=True)]
        everything = [clip for part in of_kind for clip in part]
        kinds[kind] = {
            "small": outcome(everything, small),
            "large": outcome(everything, large),
            "cascade": functools.reduce(operator.add, both),
        }
    kinds["all"] = {
        name: sum((each[name] for each in kinds.values()), Outcome())
        for name in ("small", "large", "cascade")
    }
    whole = kinds["all"]["large"].cycles
    curve = []
    for threshold in np.linspace(0, 1, 21):
        found = outcome(clips, SpeechCascade(small, large, float(threshold)))
        curve.append((round(float(threshold), 2), found.errors, found.cycles / whole))
    return {
        "more": more,
        "thresholds": thresholds,
        "threshold": calibrated(clips, small, large, more),
        "kinds": {kind: {n: vars(o) for n, o in each.items()} for kind, each in kinds.items()},
        "curve": curve,
    }
