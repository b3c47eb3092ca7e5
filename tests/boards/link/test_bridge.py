"""Runs the bridge tests on both simulators."""

import pytest

from boards.link.bridge import Bridge
from boards.link.protocol import MAGIC, VERSION, Identity
from tests.cocotb_runner import run


@pytest.mark.parametrize(("data_bytes", "simulator"), [(4, "icarus"), (16, "verilator")])
def test_bridge(data_bytes, simulator):
    run(
        Bridge(Identity(MAGIC, VERSION, data_bytes, 1 << 12, 2048, 4)),
        "tests.boards.link.cocotb_bridge",
        simulators=(simulator,),
        name=f"bridge_{data_bytes}",
        env={"DATA_BYTES": str(data_bytes)},
    )
