"""Linears by the name that their module has."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from hw.sparse.formats import WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, FloatLinear

__all__ = ["formats_by_name", "place_name", "sites"]


def place_name(place: str) -> str:
    """The module's path, of a place that also gives its class and source line."""
    return place.partition(" (")[0]


def sites(graph: FloatGraph) -> dict[str, list[FloatLinear]]:
    """Linears by what names them: their module's path, or their whole place if it is shared.

    Linears that even share their place (slices of one weight) stand together.
    """
    linears = [op for op in graph.ops if isinstance(op, FloatLinear)]
    full: dict[str, set[str]] = {}
    for op in linears:
        full.setdefault(place_name(op.place), set()).add(op.place)
    found: dict[str, list[FloatLinear]] = {}
    for op in linears:
        name = place_name(op.place)
        found.setdefault(name if len(full[name]) == 1 else op.place, []).append(op)
    return found


def formats_by_name(
    graph: FloatGraph, formats: Mapping[str, WeightFormat]
) -> dict[str, WeightFormat]:
    """The format of each linear by its name in the graph, from formats by place.

    A place is a module's path, or the whole text where several linears share a path. Raises
    `CompileError` for a place without a linear.
    """
    linears = [op for op in graph.ops if isinstance(op, FloatLinear)]
    found: dict[str, WeightFormat] = {}
    for place, format in formats.items():
        meant = [op for op in linears if place in (op.place, place_name(op.place))]
        if not meant:
            names = sorted({place_name(op.place) for op in linears})
            near = difflib.get_close_matches(place, names, 3, 0.3) or names[:3]
            raise CompileError(
                f"there is no linear at {place!r} to store as {format.name}; near names: "
                + ", ".join(near)
            )
        found.update({op.name: format for op in meant})
    return found
