"""SDRAM controller against the behavioural memory: one case on Icarus, the others on Verilator."""

import pytest

from sim.sdram import SOURCE
from tests.boards.memory.bench import SdramBench, small
from tests.cocotb_runner import run

SHORT = ("random_traffic", "sequential")
CASES = {
    "plain": (small(), 100e6, {}, None),
    "pads": (small(), 100e6, {"pad_cycles": 3}, SHORT),
    "cl2": (small(cas_latency=2, t_rc=50, t_ras=30, t_wr=10), 100e6, {}, SHORT),
    "wide": (small(columns=1024), 133e6, {"data_bytes": 8}, SHORT),
    "slow": (small(rows=32, banks=2), 50e6, {"data_bytes": 16}, SHORT),
    "fast": (small(columns=256, rows=32, t_rcd=30, t_rp=25, t_rc=90), 166e6, {}, SHORT),
    # As in a large part, the wait after power-up takes longer than its refreshes are early.
    "late": (small(columns=64, power_up=120_000), 100e6, {}, ("contents_stay",)),
}
"""Part, clock, options of the controller, tests (all by default)."""


@pytest.mark.parametrize("case", CASES)
def test_sdram(case, tmp_path):
    part, hz, options, tests = CASES[case]
    report = tmp_path / "throughput.txt"
    run(
        SdramBench(part, hz, **options),
        "tests.boards.memory.cocotb_sdram",
        simulators=("icarus" if case == "pads" else "verilator",),
        name=f"sdram_{case}",
        env={
            "WEFT_REPORT": str(report),
            "WEFT_BYTES": str(part.bytes),
            "WEFT_ROWS": str(part.rows),
            "WEFT_RETENTION": str(part.cycles(hz).retention),
            "WEFT_DATA_BYTES": str(options.get("data_bytes", 4)),
        },
        testcase=tests,
        sources=[SOURCE],
    )
    if report.exists():
        print(f"{case}: {hz / 1e6:g} MHz, {options}\n{report.read_text()}")
