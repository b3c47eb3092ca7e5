"""Pictures that packages bring, to calibrate with and to measure on: nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sw.models.pictures import read

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CALIBRATION", "EVALUATION", "INSTALL", "photo", "photos"]

INSTALL = "scripts/setup-tools vision .venv"

FOLDERS = {
    "skimage": "data",
    "sklearn": "datasets/images",
    "pydicom": "data/test_files",
}
"""Of packages that have pictures."""

EVALUATION = {
    "astronaut": "skimage/astronaut.png",
    "rocket": "skimage/rocket.jpg",
    "chelsea": "skimage/chelsea.png",
    "coffee": "skimage/coffee.png",
    "cell": "skimage/cell.png",
    "china": "sklearn/china.jpg",
    "flower": "sklearn/flower.jpg",
    "CT": "pydicom/CT_small.dcm",
    "MR": "pydicom/MR_small.dcm",
    "ultrasound": "pydicom/examples_rgb_color.dcm",
}
"""To measure on, by name. No other picture was used to calibrate."""

CALIBRATION = (
    "camera.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "coins.png",
    "grass.png", "gravel.png", "brick.png", "retina.jpg", "moon.png", "horse.png", "page.png",
    "phantom.png", "clock_motion.png", "text.png",
)  # fmt: skip
"""Of scikit-image."""


def _file(place: str) -> Path:
    package, _, name = place.partition("/")
    spec = importlib.util.find_spec(package)
    path = None
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / FOLDERS[package] / name
    if path is None or not path.exists():
        raise FileNotFoundError(f"the picture {place} is missing: {INSTALL}")
    return path


def photo(name: str) -> Image:
    """A picture of `EVALUATION`. Raises `FileNotFoundError` without its package."""
    return read(_file(EVALUATION[name]))


def photos(crops: int) -> list[Image]:
    """The pictures to calibrate with, and `crops` random parts of each, small ones too, which are
    blurred when they are fitted; half of these mirrored."""
    from PIL import Image

    random, found = np.random.default_rng(7), []
    for name in CALIBRATION:
        picture = read(_file(f"skimage/{name}"))
        found.append(picture)
        for _ in range(crops):
            width, height = (np.array(picture.size) * random.uniform(0.1, 0.9, 2)).astype(int)
            left = int(random.integers(0, picture.width - width + 1))
            top = int(random.integers(0, picture.height - height + 1))
            part = picture.crop((left, top, left + int(width), top + int(height)))
            mirrored = random.random() < 0.5
            found.append(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part)
    return found
