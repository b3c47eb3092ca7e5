"""Expressions that several units build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["tree_sum"]


def tree_sum(values: Iterable[Any]) -> Any:
    """Balanced sum: `sum()` of many operands grows a bit a term and recurses."""
    terms = list(values)
    while len(terms) > 1:
        pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
        terms = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return terms[0]
