"""Fewer patches of a picture for later layers, in float: merged, or dropped by attention.

Dropped are those that the class token attends to least, as in EViT (Liang et al., arXiv
2202.07800), behind the same layers as merging; a map needs a row for each patch all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sw.models import focus, photos
from sw.models.float_look import float_rows
from sw.models.focus_head import float_logits, focus_map
from sw.models.looker import likeness
from sw.models.merging import plan
from sw.models.pictures import fitted, framed

__all__ = ["METHODS", "measure_method"]

Features = Callable[[np.ndarray, Mapping[int, int]], np.ndarray]
"""From pixels and how many go behind each layer to features of all patches."""


def class_attention(layer: Any, rows: Tensor) -> Tensor:
    """How much the class token of rows [1, tokens, features] attends to each token, over all
    heads."""
    attention, x = layer.attention, layer.norm1(rows)
    shape = (*x.shape[:2], -1, attention.head_dim)
    query, keys = (part(x).view(shape) for part in (attention.q_proj, attention.k_proj))
    scores = torch.einsum("bhd,bthd->bht", query[:, 0], keys) * attention.scaling
    return torch.softmax(scores, dim=-1).mean(dim=1)[0]


def dropped(pixels: np.ndarray, plan: Mapping[int, int], *, alike: bool) -> np.ndarray:
    """Features where patches are dropped. alike: a dropped one has the features of the one that
    stayed and was most like it then; or else what it had itself then."""
    backbone: Any = focus.load_backbone()
    with torch.no_grad():
        rows = backbone.embeddings(torch.from_numpy(pixels)[None])
        live, place = torch.arange(rows.shape[1]), torch.arange(rows.shape[1])
        for number, layer in enumerate(backbone.encoder.layer):
            before = rows[:, live]
            rows[:, live] = layer(before)
            if number in plan:
                attended = class_attention(layer, before)
                attended[0] = torch.inf  # the class token stays
                order = attended.argsort()
                gone, live = live[order[: plan[number]]], live[order[plan[number] :].sort().values]
                unit = torch.nn.functional.normalize(rows[0], dim=1)
                others = live[1:]  # a patch, not the class token
                nearest = others[(unit[gone] @ unit[others].T).argmax(dim=1)]
                for old, new in zip(gone.tolist(), nearest.tolist(), strict=True):
                    place[place == old] = new
        features = backbone.layernorm(rows)[0].numpy()
    return features[place.numpy() if alike else slice(None)][1:]


METHODS: dict[str, Features] = {
    "merged with the one most alike": lambda pixels, plan: float_rows(pixels, plan=plan).features,
    "dropped, features of the one most alike": lambda p, plan: dropped(p, plan, alike=True),
    "dropped, features as they were": lambda p, plan: dropped(p, plan, alike=False),
}


def measure_method(method: Features, count: int) -> list[float]:
    """Correlation of the map of each picture with that of all patches."""
    found = []
    for name in photos.EVALUATION:
        picture = photos.photo(name)
        features = method(fitted(picture, focus.SIZE)[0], plan(count))
        cut = framed(picture, focus.SIZE).cut(focus_map(float_logits(features)))
        found.append(likeness(picture, cut))
    return found
