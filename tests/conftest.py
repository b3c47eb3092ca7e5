"""What tests in several folders share."""

from __future__ import annotations

import resource
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sw.models.embedder import Embedder

# The same examples each time, and none fails because a machine is slow.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile("fixed")


@pytest.fixture
def full_disk():
    """No file may grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def interruptible():
    """Children get SIGINT, which they would ignore if a shell runs the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """all-MiniLM-L6-v2 for `base`, quantised once for all processes (two minutes, cached)."""
    from sw.models.embedder import Embedder  # PyTorch, which most tests do not need

    embedder = Embedder("base")
    assert embedder.graph
    return embedder
