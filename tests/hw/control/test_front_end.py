"""Runs the front end's cocotb tests: fetch, dispatch, scoreboard and queues together."""

import pytest

from hw.control.front_end import FrontEnd
from tests.cocotb_runner import run
from tests.hw.control.cocotb_front_end import CONFIG


@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_front_end(simulator):
    run(
        FrontEnd(CONFIG),
        "tests.hw.control.cocotb_front_end",
        simulators=(simulator,),
        name="front_end",
    )
