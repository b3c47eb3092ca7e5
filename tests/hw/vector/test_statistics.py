"""Row sums."""

from hw.vector.statistics import RowSums
from tests.cocotb_runner import run
from tests.hw.vector.cocotb_statistics import LANES


def test_row_sums():
    run(RowSums(LANES), "tests.hw.vector.cocotb_statistics", name="row_sums")
