"""Rules of AXI4 that a master keeps, and what it may rely on."""

from __future__ import annotations

from typing import Any

from formal.model import Model
from formal.order import stays

__all__ = ["prove_stable"]


def prove_stable(model: Model, name: str, channel: Any, prefix: str, *payload: str) -> None:
    """Nothing that was offered on a channel (`ar`, `aw`, `w`) is withdrawn or changed."""
    signals = [getattr(channel, prefix + item) for item in payload]
    valid, ready = getattr(channel, f"{prefix}valid"), getattr(channel, f"{prefix}ready")
    model.prove(name, stays(model, valid, ready, *signals))
