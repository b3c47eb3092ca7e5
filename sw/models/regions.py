"""From a focus map to boxes, and to a picture that is dark where nobody looks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Region", "regions", "side_by_side"]

THRESHOLD = 0.8
"""Of the way from a map's least to its largest value: what is above belongs to a region."""
LEAST = 0.002
"""Share of a map that a region has at least."""
DARK = 0.2
WIDEST = 1600
"""Pixels of the picture that is written, both halves together."""


@dataclass(frozen=True)
class Region:
    """A box, in pixels of the picture's file, and the focus inside the region that it holds."""

    left: int
    top: int
    width: int
    height: int
    mean: float
    largest: float

    def json(self) -> dict[str, Any]:
        return asdict(self)


def regions(focus: np.ndarray, size: tuple[int, int]) -> list[Region]:
    """Regions of a map [height, width], the one of the largest focus first.

    size: (width, height) of the picture.
    """
    from scipy import ndimage

    low, high = focus.min(), focus.max()
    above = focus >= low + THRESHOLD * (high - low)
    numbered = np.zeros(focus.shape, np.int32)
    ndimage.label(above & (high > low), output=numbered)
    scale_y, scale_x = size[1] / focus.shape[0], size[0] / focus.shape[1]
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        inside = focus[rows, columns][numbered[rows, columns] == number]
        if inside.size < LEAST * focus.size:
            continue
        left, right = round(columns.start * scale_x), round(columns.stop * scale_x)
        top, bottom = round(rows.start * scale_y), round(rows.stop * scale_y)
        box = (left, top, max(1, right - left), max(1, bottom - top))
        found.append(Region(*box, float(inside.mean()), float(inside.max())))
    return sorted(found, key=lambda region: -region.largest)


def side_by_side(picture: Image, focus: np.ndarray) -> Image:
    """The picture, and to its right the same, dark where the focus is low."""
    from PIL import Image

    scale = min(1.0, WIDEST / 2 / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = picture.resize(size, Image.Resampling.BILINEAR)
    light = Image.fromarray(focus.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(light)
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    dimmed = np.asarray(shown) * (DARK + (1 - DARK) * share)[..., None]
    both = np.concatenate([np.asarray(shown), np.rint(dimmed).astype(np.uint8)], axis=1)
    return Image.fromarray(both)
