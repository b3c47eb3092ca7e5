"""Stand-ins for what takes minutes in `boards.build`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from boards import build as flow
from boards.family import Area

NEXTPNR = """
import json, sys
from pathlib import Path
args = dict(zip(sys.argv[1:], sys.argv[2:]))
_, system, *memory = Path(args["--lpf"]).read_text().split("\\n")
assert float(system.removeprefix('FREQUENCY NET "clk" ').removesuffix(" MHZ;")) > 55, system
assert not memory or memory[0].startswith('FREQUENCY NET "pll.o_memory" 1'), memory
mhz = {"1": 101.5, "2": 110.25, "3": 106.0}[args["--seed"]]
def step(kind, cell, to, ns, **more):
    return {"type": kind, "delay": ns, "from": {"cell": cell}, "to": {"cell": to}, **more}
first = "system.accelerator.core.matrix.rows.count_TRELLIS_FF_Q_3"
last = "system.accelerator.core.vector.mode_LUT4_Z$slice"
path = [step("clk-to-q", first, first, 0.5), step("routing", first, last, 8.0, net="rows.count[3]"),
        step("logic", last, last, 0.2), step("setup", last, last, 0.1)]
clocks = {"pll.o_memory": (MEMORY_MHZ, 100.0), "clk": (mhz, 70.0),
          "pll.o_shifted": (700.0, 100.0)}
paths = {("<async>", "posedge clk"): [], ("posedge clk", "<async>"): path + path,
         ("posedge clk", "posedge pll.o_memory"): [step("routing", first, last, CROSSING_NS)]}
paths |= {(f"posedge {name}", f"posedge {name}"): path for name in clocks}
report = {"fmax": {name: {"achieved": a, "constraint": b} for name, (a, b) in clocks.items()},
          "critical_paths": [{"from": a, "to": b, "path": path} for (a, b), path in paths.items()]}
Path(args["--report"]).write_text(json.dumps(report))
Path(args["--textcfg"]).write_text("placed with seed " + args["--seed"])
"""
ECPPACK = """
import sys
from pathlib import Path
Path(sys.argv[-1]).write_text("packed, " + Path(sys.argv[-2]).read_text())
"""


def stuck(*seeds: str) -> str:
    """What a placer does before that comes to no end with these seeds."""
    return f"""
import sys, time
if sys.argv[sys.argv.index("--seed") + 1] in {seeds}:
    for i in range(2000):
        print("Info: iter=%d steplen=1.0" % i, flush=True)
    time.sleep(60)
"""


class FakeTools:
    """Tools that write what real ones might (seeds 1, 2 and 3 reach 101.5, 110.25 and 106 MHz; see
    `placer`), and a synthesis that finds `area`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path):
        self.area = Area(2000, 1000, 20, 30)
        self._monkeypatch, self._folder = monkeypatch, folder
        self.placer()
        self.tool("ECPPACK", ECPPACK)
        monkeypatch.setattr(flow, "prepare", self._prepare)
        monkeypatch.setattr(flow, "synthesise_flat", self._synthesise)

    @staticmethod
    def _prepare(_board, _config, _mhz, folder: Path) -> Path:
        (folder / "top.lpf").write_text("# without an end of line")
        return Path("top.lpf")

    def _synthesise(self, _family, folder: Path, *_progress) -> Area:
        (folder / "top.json").write_text('{"modules": {}}')
        return self.area

    def placer(self, first: str = "", memory_mhz: float = 132.0, crossing_ns: float = 4.0) -> None:
        """A placer that reaches this with the memory's clock, and between the two clocks.
        first: what it does before."""
        values = f"MEMORY_MHZ, CROSSING_NS = {memory_mhz}, {crossing_ns}\n"
        self.tool("NEXTPNR_ECP5", first + values + NEXTPNR)

    def tool(self, variable: str, text: str) -> None:
        script = self._folder / f"{variable.lower()}.py"
        script.write_text(text)
        self._monkeypatch.setenv(variable, f"{sys.executable} {script}")
