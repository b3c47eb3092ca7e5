"""Executing nodes of an exported graph: what they mean is what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["evaluate"]


def evaluate(node: torch.fx.Node, known: Mapping[torch.fx.Node, Any], memo: dict) -> Any:
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
