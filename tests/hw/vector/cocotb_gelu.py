"""Every function on every input of so many bits."""

import os

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from hw.isa import MID_BITS, Function
from hw.vector.gelu import Activation
from hw.vector.golden import activate
from tests.stream_helpers import start

BATCH = 16
BITS = int(os.environ.get("WEFT_INPUT_BITS", MID_BITS))


@cocotb.test()
@cocotb.parametrize(function=[int(f) for f in Function])
async def all_inputs(dut, function):
    await start(dut, function=function)
    every = np.arange(-(1 << (BITS - 1)), 1 << (BITS - 1)).reshape(-1, BATCH)
    got = []
    for cycle in range(len(every) + Activation.latency + 1):
        dut.first.value = int(every[min(cycle, len(every) - 1)][0]) & ((1 << MID_BITS) - 1)
        await RisingEdge(dut.clk)
        if cycle > Activation.latency - 1 and len(got) < len(every):
            word = int(dut.o.value)
            got.append(np.frombuffer(word.to_bytes(4 * BATCH, "little"), "<i4"))
    expected = activate(every, Function(function))
    wrong = np.argwhere(np.array(got) != expected)
    assert not len(wrong), f"{len(wrong)} wrong, first for {every[tuple(wrong[0])]}"
