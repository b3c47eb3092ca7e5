"""What can be chosen about looking at a picture, and what cannot."""

from __future__ import annotations

import json

import pytest

from hw.sparse.formats import WeightFormat
from sw.compiler.errors import InputError
from sw.models.view import View, read_view

SPARSE = WeightFormat.parse("2:4 int8")


def test_patches_of_a_view() -> None:
    assert (View().side, View().tokens, View().most_merged) == (16, 257, 192)
    view = View(size=196, stride=12, merged=7)
    assert (view.side, view.patches, view.most_merged) == (16, 256, 192)
    assert View(size=518).patches == 37**2


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"size": 220}, "pictures of 220 pixels cannot be: 56 or more, a multiple of 14"),
        ({"size": 42}, "pictures of 42 pixels cannot be: 56 or more, a multiple of 14"),
        ({"stride": 0}, "a stride of 0 pixels cannot be: 1 to 14 can"),
        ({"stride": 15}, "a stride of 15 pixels cannot be: 1 to 14 can"),
        (
            {"stride": 5},
            "43 x 43 patches are too many (pictures of 224 pixels, stride 5): 37 x 37 at most",
        ),
        ({"merged": -1}, "-1 patches cannot be merged: 0 to 192 of 256 can"),
        ({"merged": 193}, "193 patches cannot be merged: 0 to 192 of 256 can"),
        ({"size": 56, "merged": 13}, "13 patches cannot be merged: 0 to 12 of 16 can"),
    ],
)
def test_what_cannot_be(given: dict, text: str) -> None:
    with pytest.raises(InputError) as caught:
        View(**given)
    assert str(caught.value) == text


def test_formats_of_parts() -> None:
    view = View(formats={"encoder.layer.0.mlp.fc1": SPARSE, "head.1.windows": SPARSE})
    assert view.formats_of(None) == {"encoder.layer.0.mlp.fc1": SPARSE}
    assert view.formats_of(1) == {"windows": SPARSE} and view.formats_of(0) == {}
    assert view.digest(0) == "" != view.digest(1) != view.digest(None)


def test_a_view_from_a_file(tmp_path) -> None:
    view, path = View(size=196, merged=40, formats={"head.1.windows": SPARSE}), tmp_path / "f.json"
    path.write_text(json.dumps({"pick": view.json()}))
    assert read_view(path) == view
    for text in ("no JSON", "[]", "{}", '{"pick": {"size": 224}}', path.read_text()[:-9] + "}"):
        path.write_text(text)
        with pytest.raises(InputError, match="no file that `weft fit look --json` wrote"):
            read_view(path)
    path.write_text(json.dumps({"pick": {**view.json(), "formats": {"a": "int5"}}}))
    with pytest.raises(InputError, match="no file that `weft fit look --json` wrote"):
        read_view(path)
