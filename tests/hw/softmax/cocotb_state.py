"""Row state: L rescaled and summed, octaves and SHIFT written and read."""

import os
import random

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from hw.isa import SUM_BITS
from hw.numerics import scale_by_power
from tests.stream_helpers import start

SLOTS = 12


@cocotb.test()
async def rows(dut):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = random.Random(seed)
    await start(dut)
    total, octave, drop, shift = {}, {}, {}, {}
    updates = []  # (slot, first, shift, total): one a cycle, a slot again after six cycles
    for _ in range(300):
        recent = {u[0] for u in updates[-6:]}
        slot = rng.choice([s for s in range(SLOTS) if s not in recent])
        first = slot not in total or rng.random() < 0.2
        rescale, value = (
            rng.choice([0, 0, 1, 2, 31, -1, -4, -7]),
            rng.getrandbits(rng.randint(1, 38)),
        )
        before = 0 if first else int(scale_by_power(np.int64(total[slot]), rescale))
        total[slot] = before + value
        total[slot] %= 1 << SUM_BITS
        updates.append((slot, first, rescale, value))

    def at(cycle):
        return updates[cycle] if 0 <= cycle < len(updates) else None

    for cycle in range(len(updates) + 6):
        stage = [at(cycle - k) for k in range(6)]
        if stage[0]:
            dut.update_slot.value = stage[0][0]
        if stage[1]:
            dut.update_shift.value = stage[1][2]
        if stage[3]:
            dut.update_first.value = int(stage[3][1])
        if stage[4]:
            dut.update_total.value = stage[4][3]
        dut.update.value = int(stage[5] is not None)
        slot = cycle % SLOTS
        octave[slot], drop[slot] = rng.getrandbits(26), rng.getrandbits(3)
        shift[slot] = rng.getrandbits(6)
        dut.step.value, dut.step_slot.value = 1, slot
        dut.step_octave.value, dut.step_shift.value = octave[slot], shift[slot]
        dut.step_drop.value = drop[slot]
        await RisingEdge(dut.clk)
    dut.step.value = 0
    for slot in range(SLOTS):
        dut.slot.value = slot
        dut.shift__slot.value = slot
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        assert int(dut.total.value) == total[slot]
        assert int(dut.octave.value) == octave[slot]
        assert int(dut.drop.value) == drop[slot]
        assert int(dut.shift__data.value) == shift[slot]
