"""A number with the interval that its source leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Quantity"]


@dataclass(frozen=True)
class Quantity:
    """value: in the unit of a table, pJ if nothing else is said. low, high: between which it is.

    Sums add the ends too: what one source has too high it has too high everywhere, so errors do not
    average out.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Quantity:
        return self.map(lambda x: x * factor)

    def map(self, function: Callable[[float], float]) -> Quantity:
        """A function that grows, of the value and of both ends."""
        return Quantity(function(self.value), function(self.low), function(self.high))

    @property
    def spread(self) -> tuple[float, float]:
        """How far below and above the value the ends are, relative to it."""
        if not self.value:
            return 0.0, 0.0
        return self.low / self.value - 1, self.high / self.value - 1
