"""What tests in several folders share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sw.models.embedder import Embedder


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """all-MiniLM-L6-v2 for `base`, quantised once for all processes (two minutes, cached)."""
    from sw.models.embedder import Embedder  # PyTorch, which most tests do not need

    embedder = Embedder("base")
    assert embedder.graph
    return embedder
