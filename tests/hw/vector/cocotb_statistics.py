"""Row sums over lanes and groups, for statistics and for softmax, with pauses between groups."""

import os

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from hw.vector.statistics import RowSums
from tests.hw.vector.pipeline_driver import to_signed
from tests.stream_helpers import start

LANES = 8


@cocotb.test()
async def rows(dut):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = np.random.default_rng(seed)
    groups = []  # (first, last, softmax, terms, fine)
    for row in range(60):
        length, softmax = int(rng.choice([1, 1, 2, 3, 17])), bool(rng.integers(2))
        for g in range(length):
            terms = rng.integers(-32768, 32768, LANES)
            fine = rng.integers(0, 1 << 25, LANES)
            if row % 3 == 0:
                terms[:], fine[:] = rng.choice([-32768, 32767]), (1 << 25) - 1
            groups.append((g == 0, g == length - 1, softmax, terms, fine))
            if rng.random() < 0.3:
                groups.append(None)
    lead, last = RowSums.fine_lead, RowSums.latency
    await start(dut)
    total = squares = 0
    expected: dict[int, tuple[bool, int, int]] = {}
    checked = 0
    for cycle in range(len(groups) + lead + last + 1):

        def at(stage, cycle=cycle):
            index = cycle - lead - stage
            return groups[index] if 0 <= index < len(groups) else None

        early, now, after = at(-lead), at(0), at(1)
        dut.fine_valid.value = int(bool(early and early[2]))
        dut.i_valid.value = int(now is not None)
        dut.i_first.value = int(bool(after and after[0]))
        dut.i_softmax.value = int(bool(after and after[2]))
        for v in range(LANES):
            getattr(dut, f"fine__{v}").value = int(early[4][v]) if early else 0
            getattr(dut, f"term__{v}").value = int(now[3][v]) & 0xFFFF if now else 0
            getattr(dut, f"square__{v}").value = int(now[3][v]) ** 2 if now else 0
        if now is not None:
            first, end, softmax, terms, fine = now
            total = (0 if first else total) + int((fine if softmax else terms).sum())
            squares = (0 if first else squares) + int((terms**2).sum())
            if end:
                expected[cycle + last] = (softmax, total, squares)
        await RisingEdge(dut.clk)
        if cycle in expected:
            softmax, want, want_squares = expected[cycle]
            got = int(dut.total.value)
            assert (got if softmax else to_signed(got & 0xFFFFFFFF, 32)) == want
            assert int(dut.squares.value) == want_squares
            checked += 1
    assert checked == 60
