"""Pictures from files, as models take them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sw.compiler.errors import CompileError, InputError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Frame", "fitted", "framed", "read", "read_dicom"]


def read(path: str | Path) -> Image:
    """The picture in a file; of DICOM, where its name says so, the first one."""
    return (read_dicom if Path(path).suffix.lower() == ".dcm" else read_picture)(path)


def read_picture(path: str | Path) -> Image:
    """The picture in a file, as red, green and blue; what is transparent is white.

    Raises `InputError` for what is no picture, cut short, or has too many pixels for Pillow.
    """
    _need("PIL")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.mode.startswith("I"):  # Pillow would make white of all above 255
                opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
            picture = opened.convert("RGBA" if _is_transparent(opened) else "RGB")
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"picture {path} is too large: {first_line(error)}") from None
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow's readers raise them
        if isinstance(error, OSError) and error.filename:
            raise
        raise InputError(f"picture {path} cannot be read: {first_line(error)}") from None
    if picture.mode == "RGB":
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def read_dicom(path: str | Path) -> Image:
    """The first picture in a DICOM file, its values spread over all greys or colours."""
    _need("pydicom")
    pydicom: Any = importlib.import_module("pydicom")  # not there where types are checked
    from PIL import Image

    try:
        values = pydicom.dcmread(path).pixel_array.astype(np.float64)
    except Exception as error:  # whatever its parser raises
        raise InputError(f"{path} has no picture for pydicom: {first_line(error)}") from None
    while values.ndim > 2 and values.shape[-1] not in (3, 4):
        values = values[0]  # of several pictures the first
    values = values[0] if values.ndim > 3 else values
    low, high = values.min(), values.max()
    grey = np.rint((values - low) * (255 / max(high - low, 1))).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise CompileError(f"pictures need {package}: scripts/setup-tools vision .venv")


def _is_transparent(picture: Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


@dataclass(frozen=True)
class Frame:
    """Where a picture lies in what a model sees.

    size: (width, height) of the picture in its file. top, left, height, width: in the model's
    pixels.
    """

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The part of [height, width] values that shows the picture."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]


def framed(picture: Image, side: int) -> Frame:
    """Where a picture lies whose longer side is scaled to `side`, in the middle of a square."""
    scale = side / max(picture.size)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return Frame(picture.size, (side - height) // 2, (side - width) // 2, height, width)


def fitted(picture: Image, side: int) -> tuple[np.ndarray, Frame]:
    """(pixels [3, side, side], float32, integers 0..255; where the picture is in them).

    The longer side is scaled to `side`, black is around the rest.
    """
    from PIL import Image

    frame = framed(picture, side)
    size = (frame.width, frame.height)
    small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(small, (frame.left, frame.top))
    values = np.asarray(canvas, dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)), frame
