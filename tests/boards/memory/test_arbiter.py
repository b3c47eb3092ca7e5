"""Two masters on one slave, both simulators."""

import pytest

from boards.memory.arbiter import AxiArbiter
from tests.cocotb_runner import run


@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_arbiter(simulator):
    run(
        AxiArbiter(),
        "tests.boards.memory.cocotb_arbiter",
        simulators=(simulator,),
        name="axi_arbiter",
    )
