"""Where a decoder keeps keys and values of a sequence in its workspace, and how they get there.

Planes are as in `program/planes.py`. A pass appends at its position, which a register holds; what
fills a memory begins at its first row.
"""

from __future__ import annotations

from collections.abc import Mapping

from hw.config import AcceleratorConfig
from hw.isa import Memory, Opcode, Region
from sw.compiler.graph.decoder import key_blocks
from sw.compiler.graph.operations import Cache, DecoderState, QuantCachedAttention
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context, Value
from sw.compiler.program.decoder_program import of_caches
from sw.compiler.program.planes import Planes
from sw.compiler.stream.allocate import RegionSpace
from sw.compiler.stream.layout import Form, layout_of, words_per_row

__all__ = ["append", "capacity", "load_block", "place_caches"]


def capacity(decoder: DecoderState, op: QuantCachedAttention) -> int:
    """Keys that the planes of an attention have room for: whole key blocks."""
    start, size = key_blocks(op, decoder.keys_of(op.cache))[-1]
    return start + size


def place_caches(
    config: AcceleratorConfig, space: RegionSpace, caches: dict[str, Cache], room: Mapping[str, int]
) -> dict[str, list[Planes]]:
    """A place for each head of each cache, in the same order whatever the pass. room: keys that
    each has room for."""
    pitch = config.weight_pitch
    places: dict[str, list[Planes]] = {}
    for name, cache in caches.items():
        layout, positions = layout_of(config, cache.dim), room[name]
        sizes = [words_per_row(layout, form) * positions * pitch for form in (Form.K, Form.V)]
        places[name] = [
            Planes(space.take(sizes[0]), space.take(sizes[0]), space.take(sizes[1]), positions)
            for _ in range(cache.kv_heads)
        ]
    return places


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
    step, moved = len(place.planes), {}
    if context.graph.decoder is not None:
        moved["register"] = of_caches(context.graph.decoder)[0]
        moved["reach"] = place.positions - sum(rows)
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
            **moved,
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
