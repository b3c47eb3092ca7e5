"""Nodes of an exported graph, as messages name them."""

from __future__ import annotations

from pathlib import Path

import torch

from sw.compiler.errors import UnsupportedOperation

__all__ = ["operation_name", "place_of", "refuse"]

PYTORCH = str(Path(torch.__file__).parent)


def operation_name(node: torch.fx.Node) -> str:
    taken = getattr(node.target, "__name__", "") == "getitem"  # one of several results
    return "getitem" if taken else str(node.target)


def place_of(node: torch.fx.Node) -> str:
    """Module path, class and source line of a node, as `torch.export` recorded them; the line is
    the user's, where it was one of PyTorch's own that was reached from there."""
    stack = node.meta.get("nn_module_stack") or {}
    place = ""
    if stack:
        path, kind = list(stack.values())[-1]
        kind = getattr(kind, "__name__", str(kind).rsplit(".", 1)[-1])
        place = f"{path} ({kind})" if path else kind
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    frames = [i for i, line in enumerate(lines) if line.startswith("File ")]
    frames = [i for i in frames if PYTORCH not in lines[i]] or frames
    if frames:
        source = "; ".join(lines[frames[-1] : frames[-1] + 2])
        place = f"{place}, {source}" if place else source
    return place


def refuse(node: torch.fx.Node, reason: str = "") -> UnsupportedOperation:
    """The error that says that this node cannot be compiled."""
    return UnsupportedOperation(operation_name(node), place_of(node), reason)
