"""Whether the peer's sums saturate on this processor is measured."""

from __future__ import annotations

import numpy as np

from sw.bench import onnx_peer


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int32) @ b.astype(np.int32)


def saturating(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x86's VPMADDUBSW: two products are added into 16 bits, which saturate."""
    products = a.astype(np.int32)[:, :, None] * b.astype(np.int32)
    pairs = products[:, 0::2] + products[:, 1::2]
    return pairs.clip(-(1 << 15), (1 << 15) - 1).sum(axis=1).astype(np.int32)


def test_saturation_is_seen():
    assert not onnx_peer.saturates(exact)
    assert onnx_peer.saturates(saturating)


def test_what_it_says_of_this_processor():
    """On operands of every kind; with weights of 7 bits no processor saturates."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (4, onnx_peer.INNER), np.uint8)
    b = rng.integers(-128, 128, (onnx_peer.INNER, 16), np.int8)
    assert (exact(a, b) != saturating(a, b)).any()
    same = (onnx_peer.onnx_product(a, b) == exact(a, b)).all()
    assert same != onnx_peer.saturates()
    np.testing.assert_array_equal(onnx_peer.onnx_product(a, b // 2), exact(a, b // 2))
    np.testing.assert_array_equal(saturating(a, b // 2), exact(a, b // 2))
