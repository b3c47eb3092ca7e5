"""The row maximum tree and its memory, against max()."""

import random

import cocotb

from hw.isa import MASKED_SCORE
from hw.systolic.row_max import RowMax
from hw.systolic.tags import row_tag
from tests.hw.systolic.bench import config_from_environment
from tests.hw.systolic.clock import edge, reset, settle

CONFIG = config_from_environment()
C, SLOTS = CONFIG.columns, CONFIG.row_slots
LAYOUT = row_tag(CONFIG)
LATENCY = RowMax(CONFIG).latency


def random_values(rng: random.Random) -> list[int]:
    corners = (MASKED_SCORE, MASKED_SCORE + 1, -1, 0, 1, (1 << 31) - 1)
    if rng.random() < 0.3:
        return [rng.choice(corners) for _ in range(C)]
    size = rng.choice([8, 20, 31])
    return [rng.randint(-(1 << size), (1 << size) - 1) for _ in range(C)]


@cocotb.test
async def random_rows(dut):
    rng = random.Random(5)
    dut.tag.value = 0
    dut.counts.value = 0
    dut.row_max__slot.value = 0
    for c in range(C):
        getattr(dut, f"value__{c}").value = 0
    await reset(dut)
    memory: list[int | None] = [None] * SLOTS
    writes: dict[int, tuple[int, int, int, list[int]]] = {}
    dones: set[int] = set()
    previous_slot = None
    read: int | None = None
    for cycle in range(3000):
        tag: dict[int | str, int] = dict.fromkeys(LAYOUT.members, 0)
        values = random_values(rng)
        counts = rng.choice([0, 1, (1 << C) - 1, (1 << rng.randint(0, C)) - 1, rng.getrandbits(C)])
        if rng.random() < 0.8 and cycle < 2950:
            slot = rng.randrange(SLOTS)
            if slot == previous_slot:  # the contract: the same slot at least two cycles apart
                slot = (slot + 1) % SLOTS
            tag |= {
                "valid": 1,
                "write": int(rng.random() < 0.9),
                "row_max": int(rng.random() < 0.7),
                "first_panel": rng.randrange(2),
                "last": rng.randrange(2),
                "slot": slot,
            }
            if tag["write"] and tag["row_max"]:
                valid = [value for c, value in enumerate(values) if counts >> c & 1]
                writes[cycle + LATENCY] = (slot, tag["first_panel"], cycle, valid)
            if tag["last"]:
                dones.add(cycle + LATENCY)
            previous_slot = slot
        else:
            previous_slot = None
        dut.tag.value = LAYOUT.const(tag).as_bits()
        dut.counts.value = counts
        for c in range(C):
            getattr(dut, f"value__{c}").value = values[c]
        slot = rng.randrange(SLOTS)
        dut.row_max__slot.value = slot
        await settle()
        if read is not None:
            assert dut.row_max__data.value.to_signed() == read, f"cycle {cycle}"
        assert int(dut.done.value) == int(cycle in dones), f"cycle {cycle}"
        read = memory[slot]
        if cycle in writes:
            target, first, _, valid = writes.pop(cycle)
            top = max([MASKED_SCORE, *valid])
            old = memory[target]
            if not first and old is not None:
                top = max(top, old)
            # An unknown running maximum stays unknown, unless the row starts anew.
            memory[target] = top if first or old is not None else None
            if target == slot:
                read = None  # read in the cycle of the write
        await edge(dut)
    assert not writes
    assert all(value is not None for value in memory)
