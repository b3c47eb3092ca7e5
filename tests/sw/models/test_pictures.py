"""Pictures from files, whatever they are, and where they lie in what a model sees."""

from __future__ import annotations

import io

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.models.pictures import fitted, read
from sw.models.regions import regions, side_by_side

Image = pytest.importorskip("PIL.Image", reason="Pillow is in the extra vision")


def _save(picture, path, **how):
    picture.save(path, **how)
    return path


def _shades(mode: str, size=(30, 20)):
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"])
def test_every_kind_becomes_red_green_and_blue(mode, tmp_path):
    if mode == "I;16":
        given = Image.fromarray(np.full((20, 30), 40000, np.uint16))
    else:
        given = _shades(mode)
    picture = read(_save(given, tmp_path / "picture.png"))
    assert picture.mode == "RGB" and picture.size == (30, 20)
    if mode in ("RGB", "L", "1"):
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(given.convert("RGB")))
    if mode == "I;16":
        assert np.asarray(picture).max() - np.asarray(picture).min() == 0
        assert 150 < np.asarray(picture)[0, 0, 0] < 160  # 40,000 of 65,535


def test_what_is_transparent_is_white(tmp_path):
    values = np.zeros((4, 4, 4), np.uint8)
    values[:2, :, 3] = 255
    seen = np.asarray(read(_save(Image.fromarray(values), tmp_path / "picture.png")))
    assert (seen[:2] == 0).all() and (seen[2:] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000), (3, 500), (640, 427), (224, 224)])
def test_any_size_is_fitted(size):
    pixels, frame = fitted(Image.new("RGB", size, (255, 0, 10)), 56)
    assert pixels.shape == (3, 56, 56) and pixels.dtype == np.float32 and frame.size == size
    inside = np.stack([frame.cut(channel) for channel in pixels])
    assert max(inside.shape[1:]) == 56 and min(inside.shape[1:]) >= 1
    assert (pixels == 0).all(axis=0).sum() == 56 * 56 - inside[0].size
    want = np.array([255, 0, 10])[:, None, None]
    np.testing.assert_array_equal(inside, np.broadcast_to(want, inside.shape))


def test_bad_files_are_named(tmp_path, monkeypatch):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cut, file = tmp_path / "cut.png", io.BytesIO()
    _shades("RGB", (200, 200)).save(file, "PNG")
    cut.write_bytes(file.getvalue()[:20000])
    short = tmp_path / "short.jpg"
    file = io.BytesIO()
    _shades("RGB", (200, 200)).save(file, "JPEG")
    short.write_bytes(file.getvalue()[:9000])
    large = _save(Image.new("1", (20000, 20000)), tmp_path / "large.png")
    dicom = tmp_path / "scan.dcm"
    dicom.write_text("no DICOM")
    for path, message in (
        (text, f"{text} is not a picture that Pillow can read"),
        (cut, f"picture {cut} cannot be read: "),
        (short, f"picture {short} cannot be read: image file is truncated"),
        (large, f"picture {large} is too large: Image size (400000000 pixels) exceeds limit"),
    ):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    with pytest.raises(OSError, match="No such file"):
        read(tmp_path / "none.png")
    pytest.importorskip("pydicom", reason="pydicom is in the extra vision")
    with pytest.raises(InputError, match="has no picture for pydicom"):
        read(dicom)


def test_regions_are_where_the_map_is_high():
    focus = np.full((40, 60), 0.1)
    focus[5:15, 10:30], focus[30:36, 40:60], focus[20, 0] = 0.8, 0.9, 0.9
    found = regions(focus, (600, 800))
    assert [(r.left, r.top, r.width, r.height) for r in found] == [
        (400, 600, 200, 120),
        (100, 100, 200, 200),
    ]
    assert found[0].largest == 0.9 and found[1].mean == pytest.approx(0.8)
    assert regions(np.full((9, 9), 0.5), (9, 9)) == []


def test_what_nobody_looks_at_is_dark():
    focus = np.zeros((10, 10))
    focus[:, 5:] = 1
    both = np.asarray(side_by_side(Image.new("RGB", (20, 20), "white"), focus))
    assert both.shape == (20, 40, 3) and (both[:, :20] == 255).all()
    assert (both[:, 38:] == 255).all() and (both[:, 20:24] < 60).all()
