"""Places multipliers and block RAMs by rule where the design is regular; nextpnr places the rest.

nextpnr's static placer lets all cells flow first and then moves multipliers and block RAMs to
where the device has them. Where most of these are used that moves them far. An array of 8x16 and
its memories on an LFE5U-85F: 316,000 tiles of wire became 649,000. Placed by the rules here it
stays at 364,000 (decision 0013).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Grid", "array_sites", "floorplan", "memory_sites"]

_ARRAY = re.compile(r"\.matrix\.array\.pe_(\d+)_(\d+)\.multiplier_(\d)\.dsp$")
_BLOCK = re.compile(r"\.(\w[\w.]*)\.bank_(\d)\.granule_(\d+)_piece_(\d+)_block_(\d+)$")
"""Names of cells: `hw/systolic/array.py` and `hw/cells/multiplier.py`, `hw/cells/block_ram.py`."""

MULTIPLIER_TILES = (0, 1, 4, 5)
RAM_TILES = (0, 2, 4, 6)
"""Of the nine tiles of a block those with a site."""

ROWS = (
    ("core.param0", "core.param1", "core.residual"),
    ("core.matrix.accumulator", "core.weight"),
    ("core.activation",),
)
"""Memories in the rows of block RAM, from the top: those of the vector lanes, whose multipliers lie
above; those with a part for each column of the array, within it; the one that all columns read,
below."""


@dataclass(frozen=True)
class Grid:
    """Where a device has its multipliers and block RAMs: four in a block, blocks in rows.

    multiplier_rows, ram_rows: y of each row, and x of the first tile of its blocks.
    """

    multiplier_rows: tuple[tuple[int, tuple[int, ...]], ...]
    ram_rows: tuple[tuple[int, tuple[int, ...]], ...]


def array_sites(rows: int, columns: int, grid: Grid) -> dict[tuple[int, int, int], str]:
    """Sites of the array's multipliers by pair, column and row of the pair; none if it is larger.

    A block takes two pairs of a column, since its four multipliers share four clock enables and the
    pairs change their weights at different times. Columns stand side by side in the last two rows,
    a block of each; what does not fit there goes to the rows above.
    """
    pairs = rows // 2
    in_column = -(-pairs // 2)
    *upper, (y_1, xs_1), (y_2, xs_2) = grid.multiplier_rows
    blocks = [
        block for x_1, x_2 in zip(xs_1, xs_2, strict=True) for block in ((x_1, y_1), (x_2, y_2))
    ]
    blocks += [(x, y) for y, xs in upper for x in xs]
    if in_column * columns > len(blocks):
        return {}

    def site(pair: int, column: int, j: int) -> str:
        x, y = blocks[in_column * column + pair // 2]
        tile = MULTIPLIER_TILES[pair % 2 * 2 + j]
        return f"X{x + tile}/Y{y}/MULT18_{tile}"

    return {
        (pair, column, j): site(pair, column, j)
        for pair in range(pairs)
        for column in range(columns)
        for j in range(2)
    }


def memory_sites(blocks: Iterable[tuple[str, Any]], grid: Grid) -> dict[str, str]:
    """Sites of the block RAMs of the memories in `ROWS`. blocks: names of cells, and the cells.

    The bits of a word lie side by side, so a lane or a column finds its own in one place; blocks of
    several memories are mixed. Memories that do not fit their row are left to the placer.
    """
    found: dict[str, list[tuple[tuple[int, int, int, int], str]]] = defaultdict(list)
    for name, cell in blocks:
        match = _BLOCK.search(name)
        if cell["type"] == "DP16KD" and match:
            memory, *numbers = match.groups()
            bank, granule, piece, block = map(int, numbers)
            bits = int(cell["parameters"]["DATA_WIDTH_B"], 2)
            key = (granule, block * bits, piece, bank)
            found[_memory(memory)].append((key, name))
    sites: dict[str, str] = {}
    for memories, (y, xs) in zip(ROWS, grid.ram_rows, strict=False):
        free = [f"X{x + tile}/Y{y}/EBR{i}" for x in xs for i, tile in enumerate(RAM_TILES)]
        row: list[tuple[float, str]] = []
        for memory in memories:
            names = [name for _, name in sorted(found[memory])]
            if len(row) + len(names) <= len(free):
                row += [((i + 0.5) / len(names), name) for i, name in enumerate(names)]
        for i, (_, name) in enumerate(sorted(row)):
            sites[name] = free[int((i + 0.5) * len(free) / len(row))]
    return sites


def _memory(name: str) -> str:
    return next((m for memories in ROWS for m in memories if f".{name}".endswith(f".{m}")), "")


def floorplan(folder: Path, rows: int, columns: int, grid: Grid) -> int:
    """Write sites into `top.json`, for an array of rows x columns; returns how many."""
    path = folder / "top.json"
    design = json.loads(path.read_text())
    cells: dict[str, Any] = {}
    for module in design["modules"].values():
        cells |= module["cells"]
    in_array = array_sites(rows, columns, grid)
    sites = memory_sites(cells.items(), grid)
    for name in cells:
        match = _ARRAY.search(name)
        site = in_array.get((int(match[1]), int(match[2]), int(match[3]))) if match else None
        if site is not None:
            sites[name] = site
    for name, site in sites.items():
        cells[name]["attributes"]["BEL"] = site
    path.write_text(json.dumps(design))
    return len(sites)
