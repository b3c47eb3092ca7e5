"""One module exported at two numbers of tokens: a few, and all positions of the context.

The graph of few tokens is the one that is imported. The other shows what depends on the number of
tokens, and it alone is asked for constants by position. Both must be alike, node by node.
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
    """The nodes of a graph that one of its results needs.

    tokens: of the only sequence. result: the node whose value is wanted. stored: parameters,
    buffers and constants by the name of their placeholder. nodes: in order, inputs too.
    """

    tokens: int
    result: torch.fx.Node
    stored: dict[str, Tensor]
    nodes: list[torch.fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        needed, stack = set(), [self.result]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += node.all_input_nodes
        graph = self.result.graph
        self.nodes = [n for n in graph.nodes if n in needed or _is_input(n, self.stored)]


def _is_input(node: torch.fx.Node, stored: dict[str, Tensor]) -> bool:
    return node.op == "placeholder" and node.name not in stored


class Lengths:
    """The same graph twice.

    Members
    -------
    short, long: the two. twins: for each node of `short` its node of `long`.

    Raises `CompileError` if they are not alike.
    """

    def __init__(self, short: Exported, long: Exported) -> None:
        self.short = short
        self.long = long
        self.twins: dict[torch.fx.Node, torch.fx.Node] = {}
        self._different: set[torch.fx.Node] = set()
        self._known = {n: long.stored[n.name] for n in long.nodes if n.name in long.stored}
        self._tables: dict[torch.fx.Node, Any] = {}
        if len(short.nodes) != len(long.nodes):
            raise self._unlike(short.nodes[-1])
        for a, b in zip(short.nodes, long.nodes, strict=True):
            if a.op != b.op or (a.op == "call_function" and a.target is not b.target):
                raise self._unlike(a)
            self.twins[a] = b
            if a.name in short.stored or b.name in long.stored:
                x, y = short.stored.get(a.name), long.stored.get(b.name)
                if x is None or y is None:
                    raise self._unlike(a)
                if x is not y and not (x.dtype == y.dtype and torch.equal(x, y)):
                    self._different.add(a)
                continue
            pairs = self._leaves(a)
            if any(isinstance(x, torch.fx.Node) and self.twins[x] is not y for x, y in pairs):
                raise self._unlike(a)
            if any(not isinstance(x, torch.fx.Node) and not _same(x, y) for x, y in pairs):
                self._different.add(a)

    def differs(self, node: torch.fx.Node) -> bool:
        """Whether the arguments of a node, or the value of a constant, are others in `long`."""
        return node in self._different

    def check_sizes(self, node: torch.fx.Node) -> None:
        """Refuse a view whose sizes are not in proportion to the number of tokens."""
        for x, y in self._leaves(node):
            if isinstance(x, torch.fx.Node) or _same(x, y):
                continue
            whole = type(x) is int and type(y) is int
            if not whole or x * self.long.tokens != y * self.short.tokens:
                raise refuse(node, f"{x} for {self.short.tokens} tokens, {y} for {self._context}")

    def shape(self, node: torch.fx.Node) -> tuple[int, ...]:
        """Shape of a node's value in `long`."""
        return tuple(self.twins[node].meta["val"].shape)

    def arguments(self, node: torch.fx.Node) -> tuple[tuple, dict[str, Any]]:
        """Arguments of a node in `long`, behind the first."""
        twin = self.twins[node]
        return tuple(twin.args[1:]), dict(twin.kwargs)

    def table(self, node: torch.fx.Node) -> Any:
        """Value of a constant in `long`."""
        if node not in self._tables:
            self._tables[node] = self.evaluate(node)
        return self._tables[node]

    def evaluate(self, node: torch.fx.Node) -> Any:
        """As `table`, but not kept: masks are large."""
        try:
            with torch.no_grad():
                return evaluate(self.twins[node], self._known, {})
        except (RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise refuse(node, f"there is no position {self.long.tokens - 1}: {reason}") from None

    @property
    def _context(self) -> str:
        return f"{self.long.tokens} tokens"

    def _leaves(self, node: torch.fx.Node) -> list[tuple[Any, Any]]:
        """Arguments of a node and of its twin, side by side."""
        twin = self.twins[node]
        pairs = _pairs((node.args, dict(node.kwargs)), (twin.args, dict(twin.kwargs)))
        if pairs is None:
            raise self._unlike(node)
        return pairs

    def _unlike(self, node: torch.fx.Node) -> CompileError:
        return CompileError(
            f"the module computes something else for {self.short.tokens} tokens than for "
            f"{self._context}, at {place_of(node) or node.name}"
        )


def _same(x: Any, y: Any) -> bool:
    return type(x) is type(y) and x == y


def _pairs(x: Any, y: Any) -> list[tuple[Any, Any]] | None:
    """Leaves of two nested values; None if these are not of one structure."""
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
