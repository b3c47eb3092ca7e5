"""`weft build` and `weft synth`, with stand-ins for the tools."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boards.family import Area
from boards.synthesis import Report
from sw.cli import synth
from tests.boards.fake_tools import FakeTools, stuck


@pytest.fixture
def fake(monkeypatch, tmp_path) -> FakeTools:
    monkeypatch.chdir(tmp_path)
    return FakeTools(monkeypatch, tmp_path)


def test_build_says_what_it_made(weft, fake, tmp_path):
    outcome = weft("build", "ulx3s", "--without", "sparse", "-o", tmp_path / "here")
    assert outcome.code == 0, outcome
    for text in (
        "ULX3S-85F: ulx3s without sparse",
        "110.2 MHz by nextpnr's timing model, 100 wanted",
        "seed 2, the best of 1: 101.5, 2: 110.2, 3: 106.0 MHz",
        "from core.matrix.rows.count",
        "openFPGALoader -b ulx3s",
    ):
        assert text in outcome.out, text
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert summary["config"] == "ulx3s without sparse"
    assert weft("build", "ecpix5-45f", "--config", "tiny", "--seeds", "1").code == 0
    assert (tmp_path / "build" / "ecpix5-45f" / "ecpix5-45f.bit").exists()


def test_what_it_says_to_run_can_be_pasted(weft, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    outcome = weft("build", "ulx3s", "--seeds", "1", "-o", tmp_path / "my board's")
    (line,) = (x for x in outcome.out.splitlines() if x.startswith("To load it: "))
    command = shlex.split(line.removeprefix("To load it: "))
    bitstream = tmp_path / "my board's" / "ulx3s.bit"
    assert command == ["openFPGALoader", "-b", "ulx3s", str(bitstream)] and bitstream.exists()


def test_a_seed_that_is_left_out_is_not_listed(weft, fake, tmp_path):
    fake.placer(stuck("2"))
    outcome = weft("build", "ulx3s", "-o", tmp_path / "here")
    assert "seed 3, the best of 1: 101.5, 3: 106.0 MHz" in outcome.out, outcome


def test_build_refuses(weft, fake, tmp_path):
    for arguments, text in (
        (["ulx4"], "unknown board 'ulx4'; boards: ulx3s, ecpix5-45f, ecpix5-85f, icebreaker"),
        (["ulx3s", "--config", "huge"], "unknown configuration 'huge'"),
        (["ulx3s", "--mhz", "120"], "ulx3s: timing is not met: 120 MHz were asked for"),
        (["ulx3s", "--mhz", "1000"], "clock: output of 1000 MHz; a PLL takes 6.25 to 400"),
        (["ulx3s", "--mhz", "1e303"], "clock: output of 1e+303 MHz; a PLL takes 6.25 to 400"),
        (["ulx3s", "--seeds", "0"], "0 is not in the range"),
        (["ulx3s", "-o", tmp_path / "ecppack.py"], "is a file"),
    ):
        assert text in weft("build", *arguments).error(), arguments
    fake.area = Area(luts=100_000)
    error = weft("build", "ulx3s").error()
    assert "does not fit the LFE5U-85F: 100,000 LUTs of 83,640 (16,360 too many, 120%)" in error
    assert not (tmp_path / "build" / "ulx3s").exists()


SLOW_TOOL = """
import os, time
from pathlib import Path
Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
time.sleep(60)
"""
BUILD = """
import sys
from pathlib import Path
from boards import build as flow
from boards.family import Area
from sw.cli.main import main
flow.prepare = lambda *_: Path("top.lpf")
def synthesise(family, folder, *_):
    (folder / "top.json").write_text('{"modules": {}}')
    return Area()
flow.synthesise_flat = synthesise
sys.argv = ["weft", "build", "ulx3s", "--config", "tiny", "--seeds", "1"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_stopped_leaves_nothing(fake, tmp_path, monkeypatch, interruptible, number):
    fake.tool("NEXTPNR_ECP5", SLOW_TOOL)
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("PID_FILE", str(pid_file))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    with subprocess.Popen([sys.executable, "-c", BUILD]) as process:
        while not (pid_file.exists() and pid_file.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait() != 0
    assert not Path("/proc", pid_file.read_text()).exists()
    assert list((tmp_path / "build").iterdir()) == []


def test_synth_of_configurations_and_boards(weft, fake, tmp_path, monkeypatch):
    units = {"array": Area(luts=320, multipliers=16), "host link": Area(luts=900)}
    seen = []

    def report(*arguments, **options):
        seen.append((arguments, options))
        return Report("some", 16, units)

    monkeypatch.setattr(synth, "synthesise", report)
    monkeypatch.setattr(synth, "synthesise_board", report)
    outcome = weft("synth", "tiny", "--json", tmp_path / "tiny.json")
    assert outcome.code == 0 and "tiny on ECP5" in outcome.out, outcome
    assert "placed" not in json.loads((tmp_path / "tiny.json").read_text())
    assert seen[-1][0][0].name == "tiny"
    outcome = weft("synth", "ulx3s", "--place", "--seeds", 2, "--json", tmp_path / "board.json")
    assert outcome.code == 0 and "ulx3s on ULX3S-85F" in outcome.out, outcome
    assert seen[-1][0][0].name == "ulx3s"
    assert "16 multiply-accumulates a cycle: 20 LUT4 for each" in outcome.out
    assert "110.2 MHz by nextpnr's timing model" in outcome.out
    placed = json.loads((tmp_path / "board.json").read_text())["placed"]
    assert (
        placed["fmax_mhz"] == 110.25
        and placed["clocks"][0]["critical_path"]["to"] == "core.vector.mode"
    )
    error = weft("synth", "nothing").error()
    assert "unknown configuration or board 'nothing'" in error and "ecpix5-45f" in error
