"""A strip: some columns of the INT16 rows of an M tile, between the sums and the norm of the rows.

A norm needs whole rows, but it goes through them column by column; so the rows are kept as
column strips, each in its own buffer, and the strips of the next M tile take the place of those
that are normed already. The residual memory holds little more than one M tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.isa import Opcode
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, Context, Value
from sw.compiler.lower.tile_rows import strip_count
from sw.compiler.stream.layout import Form

__all__ = ["Strip", "Strips", "strip_ranges"]


@dataclass(frozen=True)
class Strip:
    """Some columns of the rows: panels and groups (first, count); the residual words of the
    operand's and the sum's first row, `stride` words between rows."""

    panels: tuple[int, int]
    groups: tuple[int, int]
    operand: int
    address: int
    stride: int


def strip_ranges(c: AcceleratorConfig, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join parts of the columns (panels: first, count) to strips worth a command."""
    total = sum(count for _, count in parts)
    strips = strip_count(total * c.groups_per_row_panel)
    ranges: list[tuple[int, int]] = []
    for first, count in parts:
        if ranges and first < total * len(ranges) / strips:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + count)
        else:
            ranges.append((first, count))
    return ranges


class Strips:
    """All strips of one M tile.

    Parameters
    ----------
    rows: first and count. ranges: panels of each strip. operand: INT16 tensor to add, loaded
    into the strip (or read where it lives on chip). result: the sum's own tensor, if any, which
    is to be stored if `store`. together: strips must be as far apart as in a whole row, because
    something on chip is. queue: of the operand's loads.
    """

    def __init__(
        self,
        context: Context,
        rows: tuple[int, int],
        total: int,
        ranges: list[tuple[int, int]],
        operand: Value | None,
        result: Value | None,
        together: bool,
        store: bool = True,
        queue: int = ACTIVATIONS_QUEUE,
    ):
        self.context, self.rows, self.total = context, rows, total
        self.ranges, self.operand, self.result = ranges, operand, result
        self.queue = queue
        self.together = together or any(v and Form.S in v.chip for v in (operand, result))
        self.store = store and result is not None and Form.S in result.dram
        self.owns_result = result is not None and Form.S in result.chip
        self._whole: int | None = None
        self._strips: list[Strip] = []

    def _address(self, groups: tuple[int, int]) -> int:
        if self.owns_result:
            assert self.result is not None
            return self.result.chip[Form.S] + self.rows[0] * self.total + groups[0]
        if not self.together:
            return self.context.residual.take(self.rows[1] * groups[1])
        if self._whole is None:
            self._whole = self.context.residual.take(self.rows[1] * self.total)
        return self._whole + groups[0]

    def at(self, panel: int) -> Strip:
        """The strip with this panel; parts come in order."""
        c = self.context.config
        for strip in self._strips:
            if strip.panels[0] <= panel < sum(strip.panels):
                return strip
        panels = self.ranges[len(self._strips)]
        groups = (panels[0] * c.groups_per_row_panel, panels[1] * c.groups_per_row_panel)
        address = operand = self._address(groups)
        stride = self.total if self.together else groups[1]
        if self.operand is not None:
            if Form.S in self.operand.chip:
                operand = self.operand.chip[Form.S] + self.rows[0] * self.total + groups[0]
            else:
                self.context.move_rows(
                    Opcode.LOAD, self.operand, self.rows, groups, address, stride, self.queue
                )
        self._strips.append(Strip(panels, groups, operand, address, stride))
        return self._strips[-1]

    def __iter__(self):
        return iter(self._strips)

    def free(self, strip: Strip) -> None:
        """The strip's last command is emitted."""
        if not self.together:
            self.context.residual.give_back(strip.address)

    def free_all(self) -> None:
        """So are those of all strips."""
        if self._whole is not None:
            self.context.residual.give_back(self._whole)
