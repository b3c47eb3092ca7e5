"""Runs the framing tests on both simulators."""

import pytest

from boards.link.framing import FrameReceiver, FrameTransmitter
from tests.cocotb_runner import run


def test_transmitter():
    run(FrameTransmitter(), "tests.boards.link.cocotb_frame_transmitter", name="frame_tx")


@pytest.mark.parametrize(("size", "simulator"), [(512, "icarus"), (2048, "verilator")])
def test_receiver(size, simulator):
    run(
        FrameReceiver(size),
        "tests.boards.link.cocotb_frame_receiver",
        simulators=(simulator,),
        name=f"frame_rx_{size}",
        env={"BUFFER": str(size)},
    )
