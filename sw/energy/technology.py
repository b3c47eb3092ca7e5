"""Energies of a technology, as a table has them, between its points and beyond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sw.energy.quantity import Quantity
from sw.energy.table import Point, Table, TableError

__all__ = ["Technology"]


class Technology:
    """Between two points energies follow a power of the size, each end of the interval its own:
    multipliers of 8 and of 32 bits say what one of 17 takes. Beyond the points the power of the
    two nearest ones goes on for operations; memories keep the energy of the smallest and the
    largest.

    Methods return pJ. They raise `TableError` where the table lacks what they need.
    """

    def __init__(self, table: Table):
        self._table = table

    def multiply(self, a_bits: int, b_bits: int) -> Quantity:
        """A product; as of a square multiplier with as many cells."""
        return self._at("multiplier", "multiply", "bits", math.sqrt(a_bits * b_bits), power=2)

    def add(self, bits: int) -> Quantity:
        return self._at("adder", "add", "bits", bits, power=1)

    def write_register(self) -> Quantity:
        """A bit of it."""
        return self._one("register", "write")

    def clock(self, action: str, bits: float) -> Quantity:
        """A cycle of so many bits of registers: `clock`, awake, or `asleep`."""
        return self._one("register", action) * bits

    def access(self, way: str, size: float, bits: int) -> Quantity:
        """A word of `bits` of a memory of `size` bytes."""
        points = self._table.points("sram", way)
        of_bit = [
            Point(p.energy * (1 / self._argument(p, "sram", way, "bits")), p.arguments)
            for p in points
        ]
        sizes = [self._argument(p, "sram", way, "bytes") for p in points]
        inside = min(max(size, min(sizes)), max(sizes))
        return self._between(of_bit, sizes, inside, power=0) * bits

    def wire(self, bits: int) -> Quantity:
        """Over the way that the table assumes between memory controller and memories."""
        return self._one("wire", "transfer") * bits

    def dram(self, way: str, bits: int) -> Quantity:
        (point, *_) = self._table.points("dram", way)
        return point.energy * (bits / self._argument(point, "dram", way, "bits"))

    def leakage(self, kilobytes: float) -> Quantity:
        """A cycle of memories of so many KB; 0 where the table does not say."""
        known = ("leakage", "cycle") in self._table.actions
        return self._one("leakage", "cycle") * kilobytes if known else Quantity()

    def _one(self, component: str, action: str) -> Quantity:
        return self._table.points(component, action)[0].energy

    def _argument(self, point: Point, component: str, action: str, name: str) -> float:
        if name not in point.arguments:
            raise TableError(
                f"energy table {self._table.file}: {component}.{action}.arguments.{name} is "
                f"missing: say what the energy is of"
            )
        return point.arguments[name]

    def _at(self, component: str, action: str, name: str, size: float, power: int) -> Quantity:
        points = self._table.points(component, action)
        sizes = [self._argument(point, component, action, name) for point in points]
        return self._between(points, sizes, size, power)

    @staticmethod
    def _between(
        points: Sequence[Point], sizes: Sequence[float], size: float, power: int
    ) -> Quantity:
        """power: of a single point."""
        known = sorted(zip(sizes, points, strict=True), key=lambda pair: pair[0])
        if len(known) == 1:
            return known[0][1].energy * (size / known[0][0]) ** power
        upper = next((i for i in range(1, len(known)) if size <= known[i][0]), len(known) - 1)
        (s0, p0), (s1, p1) = known[upper - 1], known[upper]
        part = math.log(size / s0) / math.log(s1 / s0) if s1 > s0 else 0.0

        def of(end: Callable[[Quantity], float]) -> float:
            e0, e1 = end(p0.energy), end(p1.energy)
            return e0 * (e1 / e0) ** part if e0 and e1 else e0 + (e1 - e0) * part

        return Quantity(of(lambda q: q.value), of(lambda q: q.low), of(lambda q: q.high))
