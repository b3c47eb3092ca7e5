"""What a graph is fed with."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FloatInput"]


@dataclass(frozen=True)
class FloatInput:
    """A module input, or a feed that the host computes from them (`graph/host.py`).

    kind: "tokens" (integers), "float" (activations), "mask" (0 = ignored key), "host" (only the
    host reads it).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    place: str = ""
