"""Texts to calibrate with: what is kept is what was read."""

from __future__ import annotations

from sw.models import corpus


def test_kept_sentences_are_those_of_the_packages():
    kept, read = corpus._technical(), corpus._read_technical()
    assert [list(part.items()) for part in kept] == [list(part.items()) for part in read]
    assert len(read[0]) > 1000 and len(read[1]) > 10
