"""Softmax of attention scores, however it is written.

PyTorch takes its attention apart into a softmax and a choice of 0 for queries that see no key, and
people write `exp(x - max) / sum` or `nan_to_num`. Instead of matching these, the nodes are executed
on sample scores and compared with what the accelerator does: softmax, 0 where no key is seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sw.compiler.capture.evaluate import evaluate
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Pointwise, Probabilities, Scores
from sw.compiler.errors import UnsupportedOperation

__all__ = ["softmax_so_far"]

CLOSE = 1e-5


def softmax_so_far(c: Capture, node: torch.fx.Node, error: UnsupportedOperation) -> object:
    """The probabilities that `node` makes of scores, or what may become those; else `error`."""
    source = _scores_of(c, node)
    if source is None:
        raise error
    try:
        if all(
            _is_softmax(probes, evaluate(node, {**c.constants, source: probes}, {}))
            for probes in _probes(tuple(source.meta["val"].shape))
        ):
            return Probabilities(c.values[source])  # pyright: ignore
    except (RuntimeError, IndexError, TypeError, ValueError):
        raise error from None
    operands = (c.values[item] for item in node.all_input_nodes)
    first = next((item.error for item in operands if isinstance(item, Pointwise)), error)
    return Pointwise(node, first)


def _scores_of(c: Capture, node: torch.fx.Node) -> torch.fx.Node | None:
    """The one node of scores of which `node` is a function."""
    found, stack, done = set(), [node], set()
    while stack:
        current = stack.pop()
        if current in done or isinstance(c.values.get(current), Tensor):
            continue
        done.add(current)
        if isinstance(c.values.get(current), Scores):
            found.add(current)
        elif current is node or isinstance(c.values.get(current), Pointwise | Probabilities):
            stack.extend(current.all_input_nodes)
        else:
            return None
    return found.pop() if len(found) == 1 else None


def _is_softmax(probes: Tensor, found: object) -> bool:
    """Whether these are the probabilities of the scores `probes`, as far as they are defined."""
    expected = probes.softmax(-1)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    if not found.is_floating_point():
        return False
    visible = probes.amax(-1, keepdim=True) > float("-inf")
    seen = ((found - expected).abs() <= CLOSE) | ~visible
    undefined = visible | (found == 0) | found.isnan()  # what sees nothing gets 0, or anything
    return bool((seen & undefined).all())


def _probes(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Scores of this shape: of about the same size, so that every key has a share; then small and
    large ones, with some keys hidden, for some queries all."""
    generator = torch.Generator().manual_seed(0)
    yield torch.randn(shape, generator=generator, dtype=torch.float64)
    for _ in range(2):
        rows = torch.rand((*shape[:-1], 1), generator=generator)
        scores = 60 * rows**2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        hidden = (torch.rand(shape, generator=generator) < 0.2) | (rows < 0.2)
        yield scores.masked_fill(hidden, float("-inf"))
