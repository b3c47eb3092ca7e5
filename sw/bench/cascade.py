"""What cascades save: questions to a small program and a large one; each half is measured with the
threshold that calibration on the other half gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sw.decoding.self_test import calibrate, doubted

__all__ = ["Questions", "account", "agreement_by_confidence", "curve", "figures", "halves"]


@dataclass(frozen=True)
class Questions:
    """A pair of programs, and what both said; all arrays have a number for each question.

    confidences: of the small program. wrong: how many of its answers are not the large one's, `of`
    so many: 0 or 1 of 1, or tags of a text. small, large: cycles of the programs.
    """

    confidences: NDArray[np.float64]
    wrong: NDArray[np.int64]
    of: NDArray[np.int64]
    small: NDArray[np.float64]
    large: NDArray[np.float64]

    def __getitem__(self, part: slice) -> Questions:
        return Questions(*(getattr(self, name)[part] for name in self.__dataclass_fields__))

    def scaled(self, small: float, large: float) -> Questions:
        """With so many times the cycles of either program."""
        return replace(self, small=self.small * small, large=self.large * large)


def halves(questions: Questions) -> tuple[Questions, Questions]:
    """Every other question, and the others."""
    return questions[0::2], questions[1::2]


def account(questions: Questions, wanted: float) -> dict[str, Any]:
    """A cascade that is calibrated on one half and measured on the other, and the other way round.

    `agreement`: share of answers that are the large program's; `alone`: of the small one's.
    `doubted`: share of questions that the large one was asked. `cycles_ratio`: all cycles of both
    / those of the large one alone; `small_ratio`: of the small one alone. `threshold`: mean of both
    halves'.
    """
    thresholds = []
    asked_cycles = 0.0
    wrong = doubts = 0
    for known, new in (halves(questions), halves(questions)[::-1]):
        threshold = calibrate(known.confidences, known.wrong, wanted, known.of)
        asked = doubted(new.confidences, threshold)
        wrong += int(new.wrong[~asked].sum())
        doubts += int(asked.sum())
        asked_cycles += float(new.large[asked].sum())
        thresholds.append(threshold)
    answers, large = int(questions.of.sum()), float(questions.large.sum())
    small = float(questions.small.sum())
    return {
        "wanted": wanted,
        "threshold": float(np.mean(thresholds)),
        "thresholds": thresholds,
        "questions": len(questions.of),
        "answers": answers,
        "agreement": 1 - wrong / answers,
        "alone": 1 - int(questions.wrong.sum()) / answers,
        "doubted": doubts / len(questions.of),
        "cycles_ratio": (small + asked_cycles) / large,
        "small_ratio": small / large,
        "large_cycles": large / len(questions.of),
    }


def figures(questions: Questions, agreements: Sequence[float]) -> dict[str, Any]:
    """The account of the first agreement that is wanted, those of the `others`, and both curves."""
    first, *others = (account(questions, wanted) for wanted in agreements)
    return {
        **first,
        "others": others,
        "by_confidence": agreement_by_confidence(questions),
        "curve": curve(questions),
    }


def curve(questions: Questions, points: int = 101) -> list[tuple[float, float]]:
    """(share of questions that the large program is asked, agreement), the least sure first."""
    order = np.argsort(questions.confidences, kind="stable")
    right = np.concatenate([[0], np.cumsum(questions.wrong[order])])
    agreement = 1 - (questions.wrong.sum() - right) / questions.of.sum()
    places = np.linspace(0, len(order), points).round().astype(int)
    return [(float(n / len(order)), float(agreement[n])) for n in places]


def agreement_by_confidence(questions: Questions, bins: int = 8) -> list[tuple[float, float]]:
    """(middle confidence, agreement) of bins of equally many questions."""
    order = np.argsort(questions.confidences, kind="stable")
    found = []
    for part in np.array_split(order, min(bins, len(order))):
        wrong, of = questions.wrong[part].sum(), questions.of[part].sum()
        found.append((float(np.median(questions.confidences[part])), float(1 - wrong / of)))
    return found
