"""Predictions for boards: the whole board's RTL with a small accelerator, equal to golden."""

import dataclasses

import pytest

from boards.targets.board import get_board
from sw.bench.board import predict
from sw.bench.cases import Encoder, Gemm
from sw.compiler.errors import CompileError
from tests.sim.rtl import LEAST

BOARD = dataclasses.replace(get_board("ulx3s"), config=LEAST)


def test_a_prediction_is_exact_and_counts_the_memory():
    result = predict(Encoder(16, 2, 32, 8), BOARD, optimise=False)
    assert result["bit_exact"]
    assert "prediction" in result["kind"]
    assert result["matrix_busy"] + sum(result["stalls"].values()) == result["cycles"]
    assert result["sequences_per_second"] == pytest.approx(BOARD.mhz * 1e6 / result["cycles"])
    # Two bytes a cycle at most, and with so little work most of them go.
    assert 0.1 < result["sdram_bandwidth_share"] < 1


def test_boards_without_sdram_are_refused():
    with pytest.raises(CompileError, match="iCEBreaker has no SDRAM"):
        predict(Gemm(1, 8, 8), get_board("icebreaker"))
