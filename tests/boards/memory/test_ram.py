"""On-chip memory, both simulators."""

import pytest

from boards.memory.ram import AxiRam
from tests.cocotb_runner import run


@pytest.mark.parametrize(
    ("size", "data_bytes", "simulator"), [(16384, 4, "icarus"), (20480, 8, "verilator")]
)
def test_ram(size, data_bytes, simulator):
    run(
        AxiRam(size, data_bytes),
        "tests.boards.memory.cocotb_ram",
        simulators=(simulator,),
        name=f"ram_{size}",
        env={"WEFT_BYTES": str(size), "WEFT_DATA_BYTES": str(data_bytes)},
    )
