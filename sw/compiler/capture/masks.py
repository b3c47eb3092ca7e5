"""What an attention mask means, found by executing it.

Libraries build attention masks from the key mask by many different chains of small integer
operations. Instead of matching the chains, the front end executes the exported nodes on probe
masks and compares: the result must be "key j is visible", with or without causal order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sw.compiler.capture.symbolic import Derived, Hidden

__all__ = ["Visibility", "evaluate", "interpret_mask"]

HIDDEN = -1e4
"""An additive mask hides a key by at most this; everything above but 0 is not a mask."""

PROBES = 6


@dataclass(frozen=True)
class Visibility:
    """Which keys a query sees: those of the key mask `source`, up to itself if causal."""

    causal: bool
    source: str | None


def evaluate(node: torch.fx.Node, known: Mapping[torch.fx.Node, object], memo: dict) -> object:
    """Execute `node` and what it depends on; `known` holds constants and probe inputs."""
    order: list[torch.fx.Node] = []
    stack = [node]
    while stack:
        current = stack.pop()
        if current in known or current in memo:
            continue
        order.append(current)
        stack.extend(current.all_input_nodes)

    def value(item: torch.fx.Node) -> Any:
        return known[item] if item in known else memo[item]

    for current in reversed(order):
        if current not in memo:
            args = torch.fx.map_arg(current.args, value)
            kwargs = torch.fx.map_arg(current.kwargs, value)
            memo[current] = current.target(*args, **kwargs)  # pyright: ignore
    return value(node)


def _visible(mask: Tensor) -> Tensor | None:
    """Boolean mask of a boolean or additive one; None if it is neither."""
    if mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point() and bool(((mask == 0) | (mask <= HIDDEN)).all()):
        return mask == 0
    return None


def interpret_mask(
    parts: tuple[object, ...],
    inputs: Mapping[torch.fx.Node, tuple[int, ...]],
    execute: Callable[[torch.fx.Node, Mapping], object],
    batch: int,
    tokens: int,
) -> Visibility | str:
    """The meaning of a mask (all `parts` together), or the reason why it has none.

    parts: constant tensors or `Derived` values, for scores [batch, heads, tokens, tokens];
        `Hidden(part)` is a boolean one that is true where a key is hidden.
    inputs: integer, boolean or mask inputs by node, with their shapes.
    execute: `(node, probe values of inputs) -> tensor`.
    """
    derived = [p for p in (getattr(part, "mask", part) for part in parts) if isinstance(p, Derived)]
    sources = {node for part in derived for node in _inputs_of(part.node, inputs)}
    if len(sources) > 1:
        names = ", ".join(sorted(node.name for node in sources))
        return f"the mask depends on several inputs ({names})"
    source = next(iter(sources), None)
    if source is not None and inputs[source] != (batch, tokens):
        return f"mask input {source.name} has shape {inputs[source]}, not {(batch, tokens)}"

    generator = torch.Generator().manual_seed(0)
    lower = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    causal: bool | None = None
    for probe in range(PROBES if source is not None else 1):
        keys = torch.ones(batch, tokens, dtype=torch.bool)
        if probe:
            keys = torch.rand(batch, tokens, generator=generator) < 0.6
            keys[:, 0] = True  # a query that sees nothing at all is left undefined
        seen = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
        for item in parts:
            part = item.mask if isinstance(item, Hidden) else item
            tensor = part
            if isinstance(part, Derived):
                dtype = source.meta["val"].dtype if source is not None else torch.bool
                tensor = execute(part.node, {source: keys.to(dtype)} if source is not None else {})
            visible = _visible(tensor) if isinstance(tensor, Tensor) else None
            if isinstance(item, Hidden) and visible is not None:
                visible = ~visible
            if visible is None:
                return "the mask is not boolean and not 0 or very negative"
            try:
                seen = seen & visible
            except RuntimeError:
                return f"the mask's shape {tuple(visible.shape)} does not fit the scores"
        expected = keys[:, None, None, :].expand(batch, 1, tokens, tokens)
        matches = {
            option: bool((seen == (expected & lower if option else expected)).all())
            for option in (False, True)
        }
        if causal is None:
            causal = matches[True] and not matches[False]
        if not matches[causal]:
            return "the mask is not a key mask [batch, tokens], with or without causal order"
    return Visibility(bool(causal), source.name if source is not None else None)


def _inputs_of(node: torch.fx.Node, inputs: Mapping[torch.fx.Node, object]) -> set[torch.fx.Node]:
    found, stack, seen = set(), [node], set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in inputs:
            found.add(current)
        stack.extend(current.all_input_nodes)
    return found
