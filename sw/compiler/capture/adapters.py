"""Adapters beside a linear, merged into its weights: `W x + B (A x)` is `(W + B A) x`.

Low-rank adapters (LoRA, arXiv 2106.09685) are two small linears whose result is added to that of a
large one; scales are in their weights by then. Beside it they would take a pass of their own over
the sums. They stay there where the large linear's weights must stay what they are: quantised
already, or 2:4 sparse, whose zeros a sum would fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hw.sparse.formats import KEPT, quads
from sw.compiler.graph.operations import FloatAdd, FloatLinear, FloatOp, operands

__all__ = ["merge_adapters"]


def merge_adapters(ops: Sequence[FloatOp], outputs: Sequence[str]) -> list[FloatOp]:
    """`ops` with each adapter that only its sum reads merged into the linear beside it.

    outputs: names of values that others need.
    """
    uses = Counter([name for op in ops for name in operands(op)] + list(outputs))
    found: dict[str, FloatOp] = {op.name: op for op in ops}
    for op in ops:
        if isinstance(op, FloatAdd):
            merged = _merged(found, uses, op)
            if merged is not None:
                found[op.name] = merged
    needed = set(outputs)
    for op in reversed(found.values()):
        if op.name in needed:
            needed.update(operands(op))
    return [op for op in found.values() if op.name in needed or not isinstance(op, FloatLinear)]


def _merged(found: dict[str, FloatOp], uses: Counter[str], op: FloatAdd) -> FloatLinear | None:
    for first, second in ((op.x, op.y), (op.y, op.x)):
        main, up = found[first], found[second]
        if not isinstance(main, FloatLinear) or not isinstance(up, FloatLinear):
            continue
        down = found[up.x]
        parts = (main, up, down)
        if (
            not isinstance(down, FloatLinear)
            or down.x != main.x
            or any(uses[part.name] > 1 for part in parts)
            or len(down.weight) >= min(main.weight.shape)  # no adapter: nothing is small
            or any(isinstance(part, FloatLinear) and part.steps is not None for part in parts)
            or _sparse(main.weight)
        ):
            continue
        weight = main.weight + up.weight.astype(np.float64) @ down.weight
        biases = [part for part in (main.bias, up.bias, _through(up, down)) if part is not None]
        return replace(
            main,
            name=op.name,
            weight=weight.astype(np.float32),
            bias=np.sum(biases, axis=0, dtype=np.float64).astype(np.float32) if biases else None,
        )
    return None


def _through(up: FloatLinear, down: FloatLinear) -> np.ndarray | None:
    """What the bias of `down` adds to the result of `up`."""
    return None if down.bias is None else up.weight.astype(np.float64) @ down.bias


def _sparse(weight: np.ndarray) -> bool:
    """Whether at most two of each four inputs count."""
    return bool((quads(weight != 0).sum(axis=2) <= KEPT).all())
