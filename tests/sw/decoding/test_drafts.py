"""Drafts copied from the text, against a search that tries every place."""

from __future__ import annotations

import numpy as np
import pytest

from sw.decoding.drafts import Acceptance, Lookup
from tests.sim.rtl import SEED


def lookup(text: list[int]) -> Lookup:
    source = Lookup()
    source.begin(text)
    return source


def drafted(text: list[int], count: int = 4) -> list[int]:
    return lookup(text).draft(count)[0]


def matches(text: list[int], end: int) -> int:
    """Tokens up to `end` that are the text's last ones."""
    count = 0
    while count <= end and text[end - count] == text[-1 - count]:
        count += 1
    return count


def likeness(text: list[int]) -> list[int]:
    """By the definition of a local alignment, cell by cell, the diagonal left out."""
    length = len(text)
    table = np.zeros((length + 1, length + 1), int)
    for row in range(1, length + 1):
        for place in range(1, length + 1):
            same = text[row - 1] == text[place - 1] and row != place
            step = min(table[row - 1, place - 1] + 1, Lookup.MOST) if same else None
            best = table[row - 1, place - 1] - 1 if step is None else step
            gaps = max(table[row - 1, place], table[row, place - 1]) - 1
            table[row, place] = max(best, gaps, 0) if place <= row else 0
    return list(table[-1, 1:])


@pytest.mark.parametrize("seed", range(SEED, SEED + 30))
def test_the_longest_match(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    text = list(map(int, rng.integers(0, int(rng.integers(2, 6)), 60)))
    if seed % 3 == 0:  # a copy with changes
        text += [t if rng.random() < 0.85 else 9 for t in text[:30]]
    source = lookup(text)
    counts = [min(matches(text, end), Lookup.MOST) for end in range(len(text) - 1)]
    np.testing.assert_array_equal(source._likeness[:-1], likeness(text)[:-1])
    place, found, _ = source._find()
    best = max(counts)
    assert min(found, Lookup.MOST) == best
    if best:
        alike = likeness(text)
        equals = [end for end, count in enumerate(counts) if count == best]
        most = max(alike[end] for end in equals)
        assert place == 1 + max(end for end in equals if alike[end] == most)


def test_the_latest_of_equal_places():
    assert drafted([1, 2, 3, 9, 1, 2, 4, 9, 8, 1, 2], 2) == [4, 9]


def test_a_copy_goes_on_with_what_it_has_copied():
    assert drafted([7, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert drafted([5, 5], 3) == [5, 5, 5]


def test_nothing_to_copy():
    for text in ([], [1], [1, 2, 3]):
        assert lookup(text).chances(7) == []


TEXT = list(range(100, 130))


def test_a_copy_goes_on_behind_a_changed_word():
    """That stands nowhere else: where the text before is alike."""
    assert drafted([*TEXT, 1, *TEXT[:12], 55], 3) == TEXT[13:16]
    assert lookup([*TEXT, 1, *TEXT[:3], 55]).chances(3) == []  # too little is alike


def test_a_copy_goes_on_at_its_own_place():
    """And not at a later one with as many tokens that match."""
    text = [*TEXT[:14], 9, *TEXT[14:], 9, 2, 3, 1, *TEXT[:14], 9]
    assert drafted(text, 3) == TEXT[14:17]


def test_every_token_of_an_answer_teaches():
    """Drafted or not: chances of what was right grow, of what was wrong fall."""
    source = lookup([1, 2, 3, 4, 5, 6, 1])
    first = source.chances(1)[0]
    source.take([2, 3, 4], 0, 0)
    assert lookup([1, 2, 3, 4, 5, 6, 1]).chances(1)[0] == first
    right, wrong = Acceptance(2), Acceptance(2)
    for _ in range(20):
        right.observe(5, True)
        wrong.observe(1, False)
    assert right.chance(1) == right.chance(9) > 0.9 and wrong.chance(1) < 0.1
    assert right.chance(0) == wrong.chance(0) == 0.5
    source.begin([1, 2, 7, 1])
    assert source.chances(1)[0] > first


def test_what_was_right_speaks_for_longer_matches():
    """Counts of a kind of evidence are on top of those of less, and not the other way round."""
    found = Acceptance(4)
    for _ in range(36):
        found.observe(1, True)
    assert found.chance(0) == 0.5
    assert found.chance(1) == found.chance(2) == found.chance(9) == (36 + 4 * 0.5) / 40
    for _ in range(4):
        found.observe(2, False)
    assert found.chance(1) == 0.95 and found.chance(2) == found.chance(3) == 0.475
