"""Where a decoder keeps keys and values of a sequence in its workspace, and how they get there.

A cache has a plane of words (panel, position) for each of: the high bytes of the keys, their low
bytes, the values, for each key/value head. A pass appends at its position, which a register holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Memory, Opcode, Region
from hw.vector.golden import to_bytes
from sw.compiler.graph.operations import Cache, DecoderState
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context, Value
from sw.compiler.program.decoder_program import of_caches
from sw.compiler.stream.allocate import RegionSpace
from sw.compiler.stream.layout import Form, layout_of, pack_tensor, words_per_row

__all__ = ["append", "cache_image", "load_block", "place_caches"]


@dataclass(frozen=True)
class Planes:
    """Offsets in the workspace of one key/value head's planes."""

    high: int
    low: int
    values: int


def capacity(decoder: DecoderState, lead: int, key_block: int) -> int:
    """Positions that a plane has room for: whole key blocks."""
    return lead + -(-(decoder.slots - lead) // key_block) * key_block


def place_caches(
    config: AcceleratorConfig, space: RegionSpace, caches: dict[str, Cache], positions: int
) -> dict[str, list[Planes]]:
    """A place for each head of each cache, in the same order whatever the pass."""
    pitch = config.weight_pitch
    places: dict[str, list[Planes]] = {}
    for name, cache in caches.items():
        layout = layout_of(config, cache.dim)
        sizes = [words_per_row(layout, form) * positions * pitch for form in (Form.K, Form.V)]
        places[name] = [
            Planes(space.take(sizes[0]), space.take(sizes[0]), space.take(sizes[1]))
            for _ in range(cache.kv_heads)
        ]
    return places


def cache_image(
    config: AcceleratorConfig, cache: Cache, planes: list[Planes], positions: int
) -> list[tuple[int, np.ndarray]]:
    """What the workspace holds of a cache's prefix: (offset, bytes)."""
    layout = layout_of(config, cache.dim)
    image: list[tuple[int, np.ndarray]] = []
    if not len(cache.keys):
        return image
    for head, place in enumerate(planes):
        part = slice(head * cache.dim, (head + 1) * cache.dim)
        high, low = to_bytes(cache.keys[:, part].astype(np.int64))
        of_plane = ((place.high, high, Form.K), (place.low, low, Form.K))
        values = (place.values, cache.values[:, part].astype(np.int64), Form.V)
        for offset, integers, form in (*of_plane, values):
            words = pack_tensor(config, integers, layout, form)
            panels = words.reshape(words_per_row(layout, form), -1)
            stride = positions * config.weight_pitch
            image += [(offset + n * stride, panel) for n, panel in enumerate(panels)]
    return image


def append(
    context: Context,
    value: Value,
    panels: tuple[int, int],
    rows: tuple[int, int],
    address: int,
    stride: int,
) -> None:
    """STORE rows of keys (two words each) or values behind what the cache holds."""
    place = value.cache
    assert place is not None
    pitch = context.config.weight_pitch
    step = len(place.planes)
    for part, offset in enumerate(place.planes):
        context.emitter.emit(
            Opcode.STORE,
            region=Region.WORKSPACE,
            memory=Memory.WEIGHT,
            offset=offset + (panels[0] * place.positions + rows[0]) * pitch,
            words=rows[1],
            runs=panels[1],
            dram_stride=place.positions * pitch,
            address=address + part,
            word_stride=step,
            run_stride=stride,
            register=of_caches(context.graph.decoder)[0],
            reach=place.positions - sum(rows),
        )


def load_block(
    context: Context,
    plane: int,
    positions: int,
    panels: int,
    block: tuple[int, int],
    address: int,
    stride: int,
    condition: Mapping[str, int],
) -> None:
    """LOAD a key block (start, size) of a plane's panels, `stride` words apart on chip."""
    pitch = context.config.weight_pitch
    context.emitter.emit(
        Opcode.LOAD,
        region=Region.WORKSPACE,
        queue=WEIGHTS_QUEUE ^ 1,
        memory=Memory.WEIGHT,
        offset=plane + block[0] * pitch,
        words=block[1],
        runs=panels,
        dram_stride=positions * pitch,
        address=address,
        word_stride=1,
        run_stride=stride,
        **condition,
    )
