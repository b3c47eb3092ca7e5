"""`weft look`: bad input, and a picture dimmed where nobody looks."""

from __future__ import annotations

import json
import re

import pytest

from sw.cli import look
from sw.compiler.errors import InputError
from sw.fit import costs
from sw.models import focus, looker, photos
from sw.models.view import View

Image = pytest.importorskip("PIL.Image", reason="Pillow is in the extra vision")


def test_bad_input(weft, tmp_path, monkeypatch):
    picture = tmp_path / "picture.png"
    Image.new("L", (3, 5)).save(picture)
    assert "No such file" in weft("look", tmp_path / "none.png").error()
    (tmp_path / "text.png").write_text("no picture")
    assert "is not a picture" in weft("look", tmp_path / "text.png").error()
    error = weft("look", picture, "--cycles", 9, "--merge", 3).error()
    assert error == "--cycles and --merge exclude each other"
    assert "Missing argument" in weft("look").err
    monkeypatch.setattr(focus, "PACKAGE", "no_such_package")
    assert weft("look", picture).error() == f"the model is missing: {focus.INSTALL}"


def test_a_picture_is_dimmed(weft, tmp_path):
    try:
        focus.weights_file()
        photo = photos.photo("rocket")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    given, output, found = (tmp_path / name for name in ("rocket.png", "out.png", "found.json"))
    photo.save(given)
    outcome = weft("look", given, "-o", output, "--device", "golden", "--json", found)
    assert outcome.code == 0, outcome
    with Image.open(output) as written:
        assert written.size == (2 * photo.width, photo.height)
    (record,) = json.loads(found.read_text())
    assert record["correlation_to_float32"] > 0.999 and record["view"]["merged"] == 0
    box = record["boxes"][0]
    assert box["left"] < 0.5 * photo.width < box["left"] + box["width"]  # the rocket in the middle


def test_an_impossible_budget_is_refused_by_shapes_alone(weft, tmp_path, monkeypatch):
    try:
        focus.weights_file()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    picture = tmp_path / "picture.png"
    Image.new("L", (3, 5)).save(picture)
    monkeypatch.setattr(looker, "Looker", None)  # nothing is quantised
    for option, budget in (("--cycles", 1000), ("--budget-ms", 1e-2)):
        error = weft("look", picture, option, budget).error()
        assert re.fullmatch(
            r"a picture takes 19,\d{3},\d{3} cycles or more on base, not 1,000", error
        )


@pytest.mark.parametrize(("cycles", "merged"), [(1000, 0), (999, 16), (904, 96), (903, 112)])
def test_as_few_as_the_budget_needs_are_merged(monkeypatch, cycles, merged):
    class Stub:
        def __init__(self, _config, _step, view):
            self.view, self.estimated_cycles = view, 1000 - view.merged

    monkeypatch.setattr(costs.ViewCosts, "total", lambda _self, _view: costs.Cost(0, 0))
    monkeypatch.setattr(looker, "Looker", Stub)
    assert look._looker("base", print, View(), cycles).view.merged == merged
    with pytest.raises(InputError, match="takes 808 cycles or more on base, not 807"):
        look._looker("base", print, View(), 807)
