"""Parts of a module, layer by layer, from their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Line", "tree"]


@dataclass(frozen=True)
class Line:
    """A line of the tree. parts: indices of the names that it stands for, several for a layer."""

    label: str
    parts: tuple[int, ...]

    @property
    def is_layer(self) -> bool:
        return len(self.parts) > 1


def _numbered(name: str) -> list[tuple[str, str]]:
    """(`encoder.layer.#`, `encoder.layer.0`) of each numbered module that `name` is in."""
    places = name.partition(" ")[0].split(".")
    found = []
    for i, place in enumerate(places[:-1]):
        if place[-1:].isdigit():
            stem = re.sub(r"\d+$", "#", place)
            before = places[:i]
            found.append((".".join([*before, stem]), ".".join([*before, place])))
    return found


def _layers(names: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the names in each layer, by the layer's name; in no layer: by their own.

    A layer is the outermost numbered module that is not the only one of its numbers.
    """
    siblings = defaultdict(set)
    for name in names:
        for stem, layer in _numbered(name):
            siblings[stem].add(layer)
    layers = defaultdict(list)
    for index, name in enumerate(names):
        own = (layer for stem, layer in _numbered(name) if len(siblings[stem]) > 1)
        layers[next(own, name)].append(index)
    return dict(layers)


def tree(names: Sequence[str], *, every_part: bool = False) -> list[Line]:
    """Lines for `names` in order: one for each layer and, indented below the first of those that
    are alike, one for each of its parts. every_part: below all of them."""
    lines, known = [], set()
    for layer, parts in _layers(names).items():
        lines.append(Line(layer if len(parts) > 1 else names[parts[0]], tuple(parts)))
        labels = [names[i].removeprefix(f"{layer}.") for i in parts]
        kind = (re.sub(r"\d+$", "", layer), *labels)
        if len(parts) > 1 and (every_part or kind not in known):
            known.add(kind)
            lines += [Line(f"  {label}", (i,)) for label, i in zip(labels, parts, strict=True)]
    return lines
