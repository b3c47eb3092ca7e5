"""Where a sequence's workspace holds keys and values, and their bytes there.

A cache has a plane of words (panel, key) for each of: the high bytes of the keys, their low bytes,
the values, for each key/value head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from hw.vector.golden import to_bytes
from sw.compiler.stream.layout import Form, layout_of, pack_tensor, words_per_row

__all__ = ["Planes", "plane_images", "planes_of", "planes_record"]


@dataclass(frozen=True)
class Planes:
    """Offsets in the workspace of one key/value head's planes, which have room for `positions`
    keys."""

    high: int
    low: int
    values: int
    positions: int


def plane_images(
    config: AcceleratorConfig, planes: Sequence[Planes], keys: np.ndarray, values: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """What the workspace holds of the first keys (INT16) and values (INT8) of a cache, [keys,
    heads*dim]: (offset, bytes)."""
    image: list[tuple[int, np.ndarray]] = []
    dim = keys.shape[1] // len(planes)
    layout = layout_of(config, dim)
    for head, place in enumerate(planes if len(keys) else ()):
        part = slice(head * dim, (head + 1) * dim)
        high, low = to_bytes(keys[:, part].astype(np.int64))
        of_plane = ((place.high, high, Form.K), (place.low, low, Form.K))
        own = (place.values, values[:, part].astype(np.int64), Form.V)
        for offset, integers, form in (*of_plane, own):
            words = pack_tensor(config, integers, layout, form)
            panels = words.reshape(words_per_row(layout, form), -1)
            stride = place.positions * config.weight_pitch
            image += [(offset + n * stride, panel) for n, panel in enumerate(panels)]
    return image


def planes_record(memories: Mapping[str, Sequence[Planes]]) -> dict[str, list[dict[str, int]]]:
    """Planes by cache as JSON data."""
    return {name: [dataclasses.asdict(p) for p in planes] for name, planes in memories.items()}


def planes_of(record: Mapping[str, list[dict[str, int]]]) -> dict[str, tuple[Planes, ...]]:
    """Planes by cache from a `planes_record`."""
    return {name: tuple(Planes(**p) for p in planes) for name, planes in record.items()}
