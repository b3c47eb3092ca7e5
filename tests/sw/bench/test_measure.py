"""What a measurement writes: sums, a timeline for Perfetto, a waveform."""

import json
import re

import pytest

from hw.config import PRESETS
from hw.isa import Opcode, Unit
from sw.bench.cases import Attention, Case, Encoder, Gemm
from sw.bench.measure import STALLS, measure
from tests.sim.rtl import LEAST

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """(measurement, trace) of a layer."""
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    result = measure(Case(Encoder(16, 2, 32, 12), TINY, memory_width=4), trace=str(path))
    return result, json.loads(path.read_text())


@pytest.mark.parametrize("workload", [Gemm(24, 40, 20), Attention(2, 20, 8, causal=True)])
@pytest.mark.parametrize("memory", [(1, 64), (64, 4), (200, 1)])
def test_causes_add_up(workload, memory):
    latency, width = memory
    result = measure(Case(workload, TINY, latency, width))
    assert result["bit_exact"]
    assert tuple(result["stalls"]) == tuple(STALLS)
    assert result["matrix_busy"] + sum(result["stalls"].values()) == result["cycles"]
    assert 0 < result["utilization"] <= result["matrix_busy"] / result["cycles"]
    assert result["bandwidth_utilization"] <= 1
    assert 0 < result["onchip_bytes_in_use"] <= result["onchip_bytes"]


def test_every_unit_is_a_track(traced):
    _, trace = traced
    assert set(trace) >= {"traceEvents", "displayTimeUnit"}
    named = [row for row in trace["traceEvents"] if row["name"] == "thread_name"]
    assert {row["tid"]: row["args"]["name"] for row in named} == {
        int(unit): unit.name.lower().replace("_", " ") for unit in Unit if unit != Unit.NONE
    }


def test_every_command_is_a_slice(traced):
    """Complete events of the Chrome format, without overlap on a track, named with their place."""
    result, trace = traced
    shown = [row for row in trace["traceEvents"] if row["ph"] == "X"]
    assert len(shown) == result["commands"] - 1  # HALT belongs to no unit
    assert {row["ph"] for row in trace["traceEvents"]} == {"M", "X"}
    end: dict[int, int] = {}
    for row in shown:
        assert isinstance(row["ts"], int) and isinstance(row["dur"], int) and row["dur"] >= 0
        assert row["ts"] >= end.get(row["tid"], 0)
        end[row["tid"]] = row["ts"] + row["dur"]
        assert row["cat"] in Opcode.__members__
    names = {row["name"] for row in shown}
    assert {"GEMM layer0.q", "NORM layer0.ffn.norm", "SOFTMAX layer0.attention"} <= names
    assert len(set(end)) == 5
    assert max(end.values()) - min(row["ts"] for row in shown) <= result["cycles"]


def test_waveform(tmp_path):
    path = tmp_path / "wave.vcd"
    result = measure(Case(Gemm(4, 4, 4), LEAST, memory_width=4), vcd=str(path))
    text = path.read_text()
    clock = re.search(r"\$var wire +1 (\S+) clk \$end", text)
    assert clock is not None
    rises = text.count(f"\n1{clock[1]}\n")
    assert result["cycles"] <= rises < result["cycles"] + 2000  # and the register accesses
    assert "m_axi_rdata" in text and "$enddefinitions" in text
