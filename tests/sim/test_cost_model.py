"""The compiler's prediction of cycles against the RTL, and the speed of small rows of the bench."""

import pytest

from hw.config import get_config
from sw.bench import workloads
from sw.bench.measure import measure_program
from sw.compiler.graph import QuantGraph
from sw.compiler.lower import lower
from tests.sw.compiler.random_graphs import random_inputs

TOLERANCE = 0.03

ROWS = {
    # The bus is the limit.
    "gemm16": (lambda: workloads.gemm(16, 384, 384), 0.84),
    "gemm1": (lambda: workloads.gemm(1, 768, 768), 0.059),
    "encoder16": (lambda: workloads.encoder(384, 12, 1536, 16), 0.93),
    # The array is.
    "gemm128": (lambda: workloads.gemm(128, 384, 512), 0.98),
    "attention12": (lambda: workloads.attention(12, 128, 32), 0.96),
    "causal": (lambda: workloads.attention(1, 512, 64, causal=True), 0.9),
    "encoder32": (lambda: workloads.encoder(192, 3, 768, 32), 0.9),
}
"""Graph, and the least useful share of the array's cycles."""


@pytest.mark.parametrize("row", ROWS)
def test_predicted_cycles(row):
    build, least = ROWS[row]
    graph: QuantGraph = build()
    program = lower(graph, get_config("base"))
    result = measure_program(program, random_inputs(graph))
    error = program.estimated_cycles / result["cycles"] - 1
    print(f"{row}: {result['cycles']} cycles, predicted {error:+.2%}")
    assert result["bit_exact"]
    assert abs(error) <= TOLERANCE
    assert result["utilization"] >= least
