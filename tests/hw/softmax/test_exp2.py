"""Softmax lane, running maximum and row state."""

from hw.softmax.exp2 import SoftmaxLane
from hw.softmax.row_step import RowStep
from hw.softmax.state import SoftmaxState
from tests.cocotb_runner import run
from tests.hw.softmax.cocotb_state import SLOTS


def test_lane():
    run(SoftmaxLane(), "tests.hw.softmax.cocotb_exp2", name="exp2")


def test_row_step():
    run(RowStep(prune=True), "tests.hw.softmax.cocotb_row_step", name="row_step")


def test_state():
    run(SoftmaxState(SLOTS), "tests.hw.softmax.cocotb_state", name="softmax_state")
