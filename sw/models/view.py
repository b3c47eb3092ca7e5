"""What is chosen about looking at a picture: its size, its patches, how many stay, and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw.sparse.formats import WeightFormat, WeightFormatError
from sw.compiler.errors import InputError
from sw.models.focus import PATCH, SIZE, grid
from sw.models.merging import MOST

__all__ = ["HEAD", "MOST_PATCHES", "View", "read_view"]

MOST_PATCHES = 37
"""In a row and in a column: for so many the model has positions."""
LEAST_SIZE = 4 * PATCH
HEAD = "head."
"""Places of linears begin so where they are the head's, then comes the number of its stage."""


@dataclass(frozen=True, kw_only=True)
class View:
    """size: height and width of what is seen, in pixels. stride: from one patch to the next, in
    pixels. merged: patches that are merged into others on the way (`merging.py`). formats: of the
    weights of linears by place, dense INT8 where nothing is said.

    Raises `InputError` for what cannot be.
    """

    size: int = SIZE
    stride: int = PATCH
    merged: int = 0
    formats: Mapping[str, WeightFormat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size % PATCH or self.size < LEAST_SIZE:
            raise InputError(
                f"pictures of {self.size} pixels cannot be: {LEAST_SIZE} or more, a multiple of "
                f"{PATCH}"
            )
        if not 1 <= self.stride <= PATCH:
            raise InputError(f"a stride of {self.stride} pixels cannot be: 1 to {PATCH} can")
        if self.side > MOST_PATCHES:
            raise InputError(
                f"{self.side} x {self.side} patches are too many (pictures of {self.size} pixels, "
                f"stride {self.stride}): {MOST_PATCHES} x {MOST_PATCHES} at most"
            )
        if not 0 <= self.merged <= self.most_merged:
            raise InputError(
                f"{self.merged} patches cannot be merged: 0 to {self.most_merged} of "
                f"{self.patches} can"
            )

    @property
    def side(self) -> int:
        """Patches in a row, and in a column."""
        return grid(self.size, self.stride)

    @property
    def patches(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        """Patches, and the class token."""
        return 1 + self.patches

    @property
    def most_merged(self) -> int:
        """Patches: then each of the others stands for `MOST`."""
        return self.patches * (MOST - 1) // MOST

    def formats_of(self, stage: int | None) -> dict[str, WeightFormat]:
        """Of a stage of the head, or of the transformer, by place in it."""
        head = HEAD if stage is None else f"{HEAD}{stage}."
        return {
            place.removeprefix(head): format
            for place, format in self.formats.items()
            if place.startswith(head) == (stage is not None)
        }

    def digest(self, stage: int | None) -> str:
        """Of these formats; empty if all are dense."""
        named = sorted((place, f.name) for place, f in self.formats_of(stage).items())
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12] if named else ""

    def json(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "stride": self.stride,
            "merged": self.merged,
            "formats": {place: format.name for place, format in self.formats.items()},
        }


def read_view(path: str | Path) -> View:
    """From a file that `weft fit look --json` wrote: its pick. Raises `InputError`."""
    try:
        found = json.loads(Path(path).read_text())["pick"]
        formats = {place: WeightFormat.parse(name) for place, name in found["formats"].items()}
        numbers = {name: int(found[name]) for name in ("size", "stride", "merged")}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, WeightFormatError):
        raise InputError(f"{path} is no file that `weft fit look --json` wrote") from None
    return View(**numbers, formats=formats)
