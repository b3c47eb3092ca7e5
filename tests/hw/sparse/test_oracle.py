"""2:4 compression against PyTorch's own, which packs for other hardware: same weights kept, in the
same places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.sparse import _semi_structured_conversions as oracle

from hw.sparse.formats import WeightFormat, check_weights
from hw.sparse.packing import TileFormat, pack, unpack

SEED = 20240229
OUTPUTS, INPUTS = 32, 128


def sparse_matrix(exactly_two: bool) -> np.ndarray:
    """[OUTPUTS, INPUTS] 2:4 INT8; fewer weights than two in some quads unless `exactly_two`."""
    rng = np.random.default_rng(SEED)
    values = rng.integers(1, 128, (OUTPUTS, INPUTS // 4, 4)) * rng.choice([-1, 1], 4)
    rank = rng.random(values.shape).argsort(axis=2)
    kept = 2 if exactly_two else rng.integers(0, 3, (OUTPUTS, INPUTS // 4, 1))
    return np.where(rank < kept, values, 0).reshape(OUTPUTS, INPUTS).astype(np.int8)


def theirs(weight: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept values [OUTPUTS, INPUTS/2], and their meta data in their own order."""
    return oracle.sparse_semi_structured_from_dense_cutlass(torch.from_numpy(weight))


def places(meta: torch.Tensor) -> np.ndarray:
    """Positions [OUTPUTS, INPUTS/4, 2] in each quad: four bits a quad, in reordered words."""
    order = oracle._calculate_meta_reordering_scatter_offsets(
        OUTPUTS, INPUTS // 32, meta.dtype, "cpu"
    )
    words = meta.flatten()[order].reshape(OUTPUTS, -1, 1).numpy().view(np.uint32)
    quads = (words >> (4 * np.arange(8, dtype=np.uint32))) & 15
    quads = quads.reshape(OUTPUTS, -1)
    return np.stack([quads & 3, quads >> 2], axis=2)


def ours(weight: np.ndarray, rows: int) -> tuple[TileFormat, np.ndarray]:
    """Words of the reduction tiles [tile, word, OUTPUTS]."""
    form = TileFormat(rows, OUTPUTS, sparse=True)
    return form, pack(form, weight.T.reshape(-1, form.reach, OUTPUTS))


def kept_of(form: TileFormat, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [OUTPUTS, INPUTS/2] and positions [OUTPUTS, INPUTS/4, 2] of packed words."""
    blocks = words.reshape(-1, 5, OUTPUTS)  # of four rows: indices, then values
    bytes_ = blocks[:, 0].view(np.uint8)
    index = np.stack([bytes_ >> 2 * u & 3 for u in range(4)], axis=1).reshape(-1, 2, OUTPUTS)
    positions = index + np.arange(2)[:, None]
    return blocks[:, 1:].reshape(-1, OUTPUTS).T, positions.transpose(2, 0, 1)


@pytest.mark.parametrize("rows", [4, 16])
def test_exactly_two_weights_in_each_quad(rows):
    """Nothing is left to choose: values, their order and positions are the same."""
    weight = sparse_matrix(True)
    kept, meta = theirs(weight)
    form, words = ours(weight, rows)
    values, positions = kept_of(form, words)
    np.testing.assert_array_equal(values, kept.numpy())
    np.testing.assert_array_equal(positions, places(meta))


@pytest.mark.parametrize("rows", [4, 16])
def test_fewer_weights(rows):
    """Which zeros are kept may differ; the matrix that both stand for does not."""
    weight = sparse_matrix(False)
    kept, meta = theirs(weight)
    dense = oracle.sparse_semi_structured_to_dense_cutlass(kept, meta).numpy()
    form, words = ours(weight, rows)
    found = unpack(form, words).reshape(INPUTS, OUTPUTS).T
    np.testing.assert_array_equal(dense, weight)
    np.testing.assert_array_equal(found, dense)


def test_what_they_prune_we_can_hold():
    """Their own selection of a dense matrix is 2:4 to us."""
    rng = np.random.default_rng(SEED)
    full = rng.integers(-128, 128, (OUTPUTS, INPUTS), dtype=np.int8)
    dense = oracle.sparse_semi_structured_to_dense_cutlass(*theirs(full)).numpy()
    check_weights(dense, WeightFormat(True))
    form, words = ours(dense, 8)
    np.testing.assert_array_equal(unpack(form, words).reshape(INPUTS, OUTPUTS).T, dense)
