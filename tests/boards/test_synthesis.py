"""Areas from Yosys: counts, units, errors."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest

from boards import synthesis, yosys
from boards.family import ECP5
from boards.synthesis import Area, synthesise
from boards.yosys import SynthesisError, run_yosys
from hw.config import PRESETS

PLAIN = dataclasses.replace(PRESETS["tiny"], name="plain", sparse=False, int4=False, scales=False)


def test_cells_count_for_the_unit_of_their_module():
    stat = {
        "modules": {
            "\\weft": {"num_cells_by_type": {"LUT4": 3, "\\weft.core.matrix.array": 1}},
            "\\weft.core.matrix.array": {
                "num_cells_by_type": {"MULT18X18D": {"count": 4}, "weft.core.load_a": 2, "PFUMX": 9}
            },
            "\\weft.core.load_a": {
                "num_cells_by_type": {"CCU2C": 5, "TRELLIS_DPR16X4": 1, "TRELLIS_FF": 7}
            },
        }
    }
    assert synthesis._areas(stat, ECP5, synthesis.ACCELERATOR) == {
        "array": Area(multipliers=4),
        "loads": Area(luts=2 * (2 * 5 + 4), ffs=14),
        "other": Area(luts=3),
    }


def test_each_product_is_a_multiplier_and_options_cost_what_they_add():
    sizes = {}
    for config in (PLAIN, PRESETS["tiny"]):
        report = synthesise(config, only=["array", "weight loader"])
        assert set(report.units) == {"array", "weight loader"}
        array = report.units["array"]
        behind = 2 * config.columns if config.scales else 0  # scale and offset of each column
        assert report.macs == config.rows * config.columns
        assert array.multipliers == report.macs + behind
        sizes[config.name] = report
    plain, full = (sizes[name].units for name in ("plain", "tiny"))
    weights = PRESETS["tiny"].rows * PRESETS["tiny"].columns
    # Two indices of 2 bits (shadow, active) and a 9-bit input for each weight, at least.
    assert full["array"].ffs >= plain["array"].ffs + (2 * 2 + 9) * weights
    assert plain["weight loader"].luts < full["weight loader"].luts
    total = json.loads(json.dumps(sizes["tiny"].json()))["total"]
    assert total["multipliers"] == full["array"].multipliers  # none in the unpacker


def test_units_around_the_accelerator_do_not_count_for_its_multipliers():
    units = {"array": Area(luts=100), "other": Area(luts=20), "host link": Area(luts=300)}
    report = synthesis.Report("some", 4, units)
    assert report.luts_per_mac == 30 and report.total == Area(luts=420)
    unit_of = synthesis.BOARD.unit_of
    assert unit_of("\\top.system.accelerator.core.load_a.x") == "loads"
    assert unit_of("top.system.memory.commands") == "board memory"
    assert unit_of("top.system") == unit_of("top.pll") == "other"


def test_unknown_unit():
    with pytest.raises(SynthesisError, match="no unit 'sums': array, weight loader"):
        synthesise(PLAIN, only=["sums"])


def test_yosys_that_fails_or_is_missing(tmp_path: Path, monkeypatch):
    seen = []
    with pytest.raises(SynthesisError, match=r"Yosys failed: ERROR: .*nothing\.v"):
        run_yosys(["read_verilog nothing.v"], tmp_path, lambda *args: seen.append(args))
    assert seen == [("read_verilog", 0, 1)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert yosys.importlib is importlib
    with pytest.raises(SynthesisError, match="pip install pyosys"):
        run_yosys(["stat"], tmp_path)
