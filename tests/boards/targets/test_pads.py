"""Every pad of a board's SDRAM, with delays, against the memory that checks."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from boards.memory.sdram_part import SdramPart
from boards.targets import board, top
from boards.targets.board import BOARDS
from boards.targets.prepare import RTLIL, convert
from boards.yosys import run_yosys
from sim.sdram import SOURCE, model_cycles
from tests.boards.targets.memory_check import MemoryCheck

PART = SdramPart(rows=32, columns=64, power_up=1000)
ULX3S = dataclasses.replace(BOARDS["ulx3s"], memory=PART)

FAST = {"OUT": 3.0, "IN": 0.1, "HOLD": 2.5, "ACCESS": 2.6}
SLOW = {"OUT": 4.0, "IN": 0.3, "HOLD": 3.0, "ACCESS": 6.0}
WIDE = {"OUT": 3.5, "IN": 0.2, "HOLD": 2.5, "ACCESS": 6.0}
"""Delays in nanoseconds, see `pads.v`: the memory's from data sheets, the FPGA's estimated."""


def outcome(folder: Path, mhz: float, memory_mhz: float, delays: dict[str, float]) -> str:
    """What the test bench prints. memory_mhz: of the memory, at most."""
    verilog = folder / f"{mhz}.v"
    target = dataclasses.replace(ULX3S, memory_mhz=memory_mhz)
    if not verilog.exists():
        (folder / RTLIL).write_text(convert(target, ULX3S.config, mhz)[RTLIL])
        commands = [f"read_rtlil {RTLIL}", "proc", "memory_collect", "opt_clean"]
        run_yosys([*commands, f"write_verilog -noattr {verilog.name}"], folder)
    parameters = model_cycles(PART, float(target.clocks(mhz).memory_hz or 0))
    model = "sdram_model #(" + ", ".join(f".{k}({v})" for k, v in parameters.items()) + ")"
    (folder / "delays.v").write_text(
        f"`define MODEL {model}\n" + "".join(f"`define {k} {v}\n" for k, v in delays.items())
    )
    sources = [folder / "delays.v", Path(__file__).with_name("pads.v"), SOURCE, verilog]
    compile_ = ["iverilog", "-g2012", "-s", "testbench", "-o", str(folder / "pads"), *sources]
    subprocess.run(compile_, check=True)
    run = subprocess.run(["vvp", "-n", folder / "pads"], check=True, capture_output=True, text=True)
    return run.stdout.strip().splitlines()[-1]


GOOD = "right=1 code=0 unsteady=0"


@pytest.mark.parametrize(
    ("mhz", "memory_mhz"),
    [
        (45, 45),
        (60, 60),
        (80, 80),
        (45, 100),
        (50, 100),
        (90, 100),
        (100, 100),
        (100, 125),
        (80, 125),
    ],
)
def test_every_word_comes_back(mhz, memory_mhz, tmp_path, monkeypatch):
    monkeypatch.setattr(top, "System", MemoryCheck)
    for delays in (FAST, SLOW, WIDE):
        assert outcome(tmp_path, mhz, memory_mhz, delays) == GOOD, delays


def test_a_wrong_phase_is_seen(tmp_path, monkeypatch):
    """Half a period, which looks right at 100 MHz, is not at 60."""
    monkeypatch.setattr(top, "System", MemoryCheck)
    monkeypatch.setattr(board, "read_window", lambda *_: (0.5, 2))
    assert re.fullmatch("right=[0x] code=0 unsteady=0", outcome(tmp_path, 60, 60, WIDE))
    monkeypatch.setattr(board, "read_window", lambda *_: (0.0, 2))
    assert outcome(tmp_path, 75, 75, WIDE).partition("unsteady=")[2] != "0"
