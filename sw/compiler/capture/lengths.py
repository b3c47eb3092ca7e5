"""One module exported at two numbers of tokens: a few, and all positions of the context.

The graph of few tokens is the one that is imported. The other shows what depends on the number of
tokens, and it alone is asked for constants by position. What depends on the token numbers must be
alike in both, node by node; constants may be computed in another way (a slice that takes all of a
buffer is not exported, for example).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sw.compiler.capture.evaluate import evaluate
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.errors import CompileError

__all__ = ["Exported", "Lengths"]


@dataclass
class Exported:
    """What one result of an exported graph needs.

    tokens: of the only sequence. result: the node whose value is wanted. stored: parameters,
    buffers and constants by the name of their placeholder. nodes: in order, with all inputs.
    active: those of them that depend on inputs, and the inputs.
    """

    tokens: int
    result: torch.fx.Node
    stored: dict[str, Tensor]
    nodes: list[torch.fx.Node] = field(init=False)
    active: list[torch.fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        needed, stack = set(), [self.result]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += node.all_input_nodes
        depending: set[torch.fx.Node] = set()
        self.nodes, self.active = [], []
        for node in self.result.graph.nodes:
            is_input = node.op == "placeholder" and node.name not in self.stored
            if node not in needed and not is_input:
                continue
            self.nodes.append(node)
            if is_input or any(n in depending for n in node.all_input_nodes):
                depending.add(node)
                self.active.append(node)


class Lengths:
    """The same graph twice.

    Members
    -------
    short, long: the two.

    Raises `CompileError` if they are not alike.
    """

    def __init__(self, short: Exported, long: Exported) -> None:
        self.short = short
        self.long = long
        self._twins: dict[torch.fx.Node, torch.fx.Node] = {}
        self._known = {n: long.stored[n.name] for n in long.nodes if n.name in long.stored}
        self._compared: dict[tuple[torch.fx.Node, torch.fx.Node], bool] = {}
        self._active = set(short.active)
        self._tables: dict[torch.fx.Node, Any] = {}
        for a, b in zip(short.active, long.active, strict=False):
            if a.op != b.op or (a.target is not b.target and a.op == "call_function"):
                raise self._unlike(a)
            self._twins[a] = b
            for x, y in self._leaves(a):
                if isinstance(x, torch.fx.Node) and self._twins.setdefault(x, y) is not y:
                    raise self._unlike(a)
        if len(short.active) != len(long.active):
            raise self._unlike(short.result)

    def differs(self, node: torch.fx.Node) -> bool:
        """Whether an active node has other numbers as arguments in `long`; of a constant, whether
        it is computed in another way there, or from other numbers."""
        twin = self._twins.get(node)
        if twin is None:
            return False  # a constant that only constants read
        if node in self._active:
            return not all(
                isinstance(x, torch.fx.Node) or _equal(x, y) for x, y in self._leaves(node)
            )
        return not self._same(node, twin)

    def check_sizes(self, node: torch.fx.Node) -> None:
        """Refuse a view whose sizes are not in proportion to the number of tokens."""
        for x, y in self._leaves(node):
            if isinstance(x, torch.fx.Node) or _equal(x, y):
                continue
            whole = type(x) is int and type(y) is int
            if not whole or x * self.long.tokens != y * self.short.tokens:
                few, many = self.short.tokens, self.long.tokens
                raise refuse(node, f"it takes {x} for {few} tokens and {y} for {many}")

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Shape of an active node's value in `long`."""
        return tuple(self._twins[node].meta["val"].shape)

    def arguments(self, node: torch.fx.Node) -> tuple[tuple, dict[str, Any]]:
        """Arguments of an active node in `long`, behind the first."""
        twin = self._twins[node]
        return tuple(twin.args[1:]), dict(twin.kwargs)

    def table(self, node: torch.fx.Node) -> Any:
        """Value in `long` of a constant that something active reads."""
        if node not in self._tables:
            self._tables[node] = self.evaluate(node)
        return self._tables[node]

    def evaluate(self, node: torch.fx.Node) -> Any:
        """As `table`, but not kept: masks are large."""
        try:
            with torch.no_grad():
                return evaluate(self._twins[node], self._known, {})
        except (RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise refuse(node, f"not for {self.long.tokens} positions: {reason}") from None

    def _same(self, a: torch.fx.Node, b: torch.fx.Node) -> bool:
        """Whether two constants are computed alike, from the same numbers."""
        if (a, b) not in self._compared:
            x, y = self.short.stored.get(a.name), self.long.stored.get(b.name)
            if x is not None and y is not None:
                found = x is y or (x.dtype == y.dtype and torch.equal(x, y))
            else:
                pairs = _pairs((a.args, a.kwargs), (b.args, b.kwargs))
                found = x is y and a.target is b.target and pairs is not None
                found = found and all(
                    self._same(x, y) if isinstance(x, torch.fx.Node) else _equal(x, y)
                    for x, y in pairs or ()
                )
            self._compared[a, b] = found
        return self._compared[a, b]

    def _leaves(self, node: torch.fx.Node) -> list[tuple[Any, Any]]:
        """Arguments of an active node and of its twin, side by side."""
        twin = self._twins[node]
        pairs = _pairs((node.args, node.kwargs), (twin.args, twin.kwargs))
        if pairs is None:
            raise self._unlike(node)
        return pairs

    def _unlike(self, node: torch.fx.Node) -> CompileError:
        return CompileError(
            f"the module computes something else for {self.short.tokens} tokens than for "
            f"{self.long.tokens}, at {place_of(node) or node.name}"
        )


def _equal(x: Any, y: Any) -> bool:
    return type(x) is type(y) and x == y


def _pairs(x: Any, y: Any) -> list[tuple[Any, Any]] | None:
    """Leaves of two nested values, nodes only beside nodes; None if the two are not alike."""
    if isinstance(x, slice) and isinstance(y, slice):
        x, y = (x.start, x.stop, x.step), (y.start, y.stop, y.step)
    if isinstance(x, dict) and isinstance(y, dict):
        if list(x) != list(y):
            return None
        x, y = list(x.values()), list(y.values())
    if isinstance(x, list | tuple) and isinstance(y, list | tuple):
        if len(x) != len(y):
            return None
        found = [_pairs(a, b) for a, b in zip(x, y, strict=True)]
        if any(item is None for item in found):
            return None
        return [pair for item in found for pair in item or ()]
    if isinstance(x, torch.fx.Node) != isinstance(y, torch.fx.Node):
        return None
    return [(x, y)]
