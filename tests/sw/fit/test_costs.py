"""Cycles of a view without lowering it: shapes, and how near they are to the compiler's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw.config import PRESETS
from hw.sparse.formats import WeightFormat
from sw.compiler.quantise.named import sites
from sw.fit.costs import ViewCosts, linears, tokens_at
from sw.fit.search import Fitter
from sw.models import focus, photos
from sw.models.focus_head import stage_graph
from sw.models.looker import Looker
from sw.models.view import View

BASE, SPARSE = PRESETS["base"], WeightFormat.parse("2:4 int8")


@pytest.fixture(autouse=True)
def packages():
    try:
        focus.weights_file()
        photos.photo("cell")
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_tokens_behind_each_merging() -> None:
    view = View(merged=160)
    assert [tokens_at(view, n) for n in (-1, 0, 1, 2, 3, 9, 11)] == [
        257,
        257,
        225,
        225,
        193,
        97,
        97,
    ]


def test_linears_of_the_whole_model() -> None:
    rows = {line.place: line.rows(View(size=168)) for line in linears()}
    assert len(rows) == 1 + 12 * 6 + 4
    assert rows["embeddings.patch_embeddings.projection"] == 145
    stage = sites(stage_graph(2, 9))
    assert [f"head.2.{place}" for place in stage] == list(rows)[-2:]
    assert rows["head.0.windows"] == 13**2 and rows["head.2.last"] == 49**2


def test_what_saves_cycles() -> None:
    costs, view = ViewCosts(BASE), View()
    dense = costs.total(view)
    formats = {line.place: SPARSE for line in linears()}
    assert 0.5 < costs.total(view, formats).cycles / dense.cycles < 0.58
    assert costs.total(replace(view, formats=formats)) == costs.total(view, formats)
    assert 0.62 < costs.total(replace(view, merged=160)).cycles / dense.cycles < 0.72
    assert costs.total(view, formats).bytes / dense.bytes == pytest.approx(5 / 8)


@pytest.mark.parametrize("merged", [0, 160])
def test_as_the_compiler_predicts(merged: int) -> None:
    view = View(merged=merged)
    wanted = Looker(view=view).estimated_cycles
    assert Fitter(BASE).costs.total(view).cycles == pytest.approx(wanted, rel=0.02)
