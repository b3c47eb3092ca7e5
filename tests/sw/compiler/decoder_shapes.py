"""Random shapes of decoders."""

from __future__ import annotations

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sw.bench.decoders import DecoderShape

__all__ = ["random_shape"]


def random_shape(
    rng: np.random.Generator, largest: int = 40, rows: int = 0, most_tiles: int = 4
) -> DecoderShape:
    """Sizes that divide nothing, and options, at random; weights sometimes scaled, for an array of
    so many `rows`."""
    weights = DENSE
    if rows and rng.integers(2):
        group = rows * int(rng.integers(1, most_tiles))
        weights = WeightFormat(bits=4, group=group, scaled=True, tile=rows)
    kv_heads, heads = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    return DecoderShape(
        hidden=int(rng.integers(3, largest)),
        heads=kv_heads * heads,
        kv_heads=kv_heads,
        dim=2 * int(rng.integers(2, 13)),
        ffn=int(rng.integers(3, 2 * largest)),
        layers=int(rng.integers(1, 3)),
        vocabulary=int(rng.integers(100, 170)),
        context=int(rng.integers(12, 60)),
        prefix=int(rng.integers(0, 3)),
        lead=int(rng.integers(0, 2)),
        key_block=int(rng.choice([16, 32])),
        gated=bool(rng.integers(2)),
        rms=bool(rng.integers(4)),
        turns=bool(rng.integers(4)),
        positions=bool(rng.integers(2)),
        head_norms=bool(rng.integers(2)),
        weights=weights,
        norm_bits=int(rng.choice([8, 16])),
    )
