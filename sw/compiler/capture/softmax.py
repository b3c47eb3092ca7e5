"""Softmax of attention scores, however it is written.

PyTorch takes its attention apart into a softmax and a choice of 0 for queries that see no key, and
people write `exp(x - max) / sum` or `nan_to_num`. Instead of matching these, the nodes are executed
on sample scores and compared with what the accelerator does: softmax, 0 where no key is seen.
"""

from __future__ import annotations

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
    probes = _probes(tuple(source.meta["val"].shape))
    expected = probes.softmax(-1)
    visible = probes.amax(-1, keepdim=True) > float("-inf")
    try:
        found = evaluate(node, {**c.constants, source: probes}, {})
    except (RuntimeError, IndexError, TypeError, ValueError):
        raise error from None
    if isinstance(found, Tensor) and found.shape == expected.shape and found.is_floating_point():
        seen = ((found - expected).abs() <= CLOSE) | ~visible
        undefined = visible | (found == 0) | found.isnan()  # what sees nothing gets 0, or anything
        if bool((seen & undefined).all()):
            return Probabilities(c.values[source])  # pyright: ignore
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


def _probes(shape: tuple[int, ...]) -> Tensor:
    """Small and large scores of this shape; some keys are hidden, for some queries all."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand((*shape[:-1], 1), generator=generator)
    scores = 60 * rows**2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    hidden = (torch.rand(shape, generator=generator) < 0.2) | (rows < 0.2)
    return scores.masked_fill(hidden, float("-inf"))
