"""Sites by rule: each one once, on the device, and where its block's clock enables allow it."""

import json
import re
from collections import Counter, defaultdict

import pytest

from boards.floorplan import array_sites, floorplan, memory_sites
from boards.targets.board import GRID_85, LFE5U_85F

CORE = "system.accelerator.core"
MULTIPLIER = re.compile(r"X(\d+)/Y(\d+)/MULT18_([0145])$")
RAM = re.compile(r"X(\d+)/Y(\d+)/EBR([0-3])$")


def test_grid_is_the_device():
    """As many sites as it has."""
    assert 4 * sum(len(xs) for _, xs in GRID_85.multiplier_rows) == LFE5U_85F.capacity.multipliers
    found = 4 * sum(len(xs) for _, xs in GRID_85.ram_rows)
    assert found <= LFE5U_85F.capacity.block_rams


@pytest.mark.parametrize(("rows", "columns"), [(8, 16), (4, 4), (8, 8), (12, 8), (2, 39), (6, 10)])
def test_array(rows: int, columns: int):
    sites = array_sites(rows, columns, GRID_85)
    assert len(sites) == rows * columns
    assert len(set(sites.values())) == len(sites)
    pairs: dict[tuple[int, int], set[int]] = defaultdict(set)
    for (pair, _, _), site in sites.items():
        match = MULTIPLIER.match(site)
        assert match, site
        x, y, tile = map(int, match.groups())
        block = x - tile
        assert block in dict(GRID_85.multiplier_rows)[y]
        pairs[block, y].add(pair)
    assert (
        max(map(len, pairs.values())) <= 2
    )  # a swap each, and the constant: three of four enables


def test_array_that_is_too_large():
    assert array_sites(8, 20, GRID_85) == {}


def block_ram(bits: int) -> dict:
    return {"type": "DP16KD", "parameters": {"DATA_WIDTH_B": f"{bits:032b}"}, "attributes": {}}


def netlist() -> dict[str, dict]:
    cells = {"top.core.matrix.other": {"type": "LUT4", "parameters": {}, "attributes": {}}}
    for bank in range(2):
        for block in range(15):
            name = f"{CORE}.matrix.accumulator.bank_{bank}.granule_0_piece_0_block_{block}"
            cells[name] = block_ram(36)
        for granule in range(4):
            for block in range(2):
                cells[f"{CORE}.weight.bank_{bank}.granule_{granule}_piece_0_block_{block}"] = (
                    block_ram(18)
                )
    for pair in range(4):
        for column in range(16):
            for j in range(2):
                cells[f"{CORE}.matrix.array.pe_{pair}_{column}.multiplier_{j}.dsp"] = {
                    "type": "MULT18X18D",
                    "parameters": {},
                    "attributes": {},
                }
    return cells


def test_memories():
    sites = memory_sites(netlist().items(), GRID_85)
    assert len(sites) == 46 and len(set(sites.values())) == 46
    places = {}
    for name, site in sites.items():
        match = RAM.match(site)
        assert match, site
        x, y, number = map(int, match.groups())
        assert y == 46 and x - 2 * number in dict(GRID_85.ram_rows)[46]
        places[name] = x
    # Bits lie from left to right, those of both banks side by side.
    for bank in range(2):
        name = f"{CORE}.matrix.accumulator.bank_{bank}.granule_0_piece_0_block_"
        row = [places[f"{name}{block}"] for block in range(15)]
        assert row == sorted(row) and row[0] < 20 and row[-1] > 100


def test_memory_that_does_not_fit_its_row():
    cells = netlist()
    for block in range(7):
        cells[f"{CORE}.weight.bank_0.granule_9_piece_0_block_{block}"] = block_ram(18)
    sites = memory_sites(cells.items(), GRID_85)
    assert Counter("weight" in name for name in sites) == {False: 30}


def test_netlist_gets_its_sites(tmp_path):
    path = tmp_path / "top.json"
    path.write_text(json.dumps({"modules": {"top": {"cells": netlist()}}}))
    assert floorplan(tmp_path, 8, 16, GRID_85) == 46 + 128
    cells = json.loads(path.read_text())["modules"]["top"]["cells"]
    placed = [cell["attributes"].get("BEL") for cell in cells.values()]
    assert placed.count(None) == 1
    assert len(set(placed)) == len(placed)
    assert cells[f"{CORE}.matrix.array.pe_0_0.multiplier_0.dsp"]["attributes"]["BEL"] == (
        "X4/Y34/MULT18_0"
    )
