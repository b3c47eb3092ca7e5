"""The accumulator alone, against a model that executes each row at the cycle of its write."""

import itertools
import os
import random
from collections import deque

import cocotb
import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE
from hw.numerics import scale_by_power
from hw.systolic.accumulator import Accumulator
from hw.systolic.tags import row_tag
from tests.hw.systolic.bench import ACC_LATENCY, config_from_environment
from tests.hw.systolic.clock import edge, reset, settle

CONFIG: AcceleratorConfig = config_from_environment()
C, WORDS, LEAD = CONFIG.columns, CONFIG.accumulator_words, Accumulator.lead
LAYOUT = row_tag(CONFIG)
SHIFTS = [slot % 39 - 7 for slot in range(CONFIG.row_slots)]
LARGEST = (1 << (CONFIG.sum_bits - 1)) - 1
BY_BYTE = (0, 1) if CONFIG.decoder else (0,)


class Model:
    """Drives one row or bubble, and one vector read or none, a cycle."""

    def __init__(self, dut):
        self.dut = dut
        self.memory = np.zeros((WORDS, C), np.int32)
        self.rows: list[tuple[dict, list[int]]] = []  # (tag, psum) in the pipeline, newest first
        self.shift = 0
        # What comes of vector reads in the next cycles: (address, word), or nothing.
        self.reads: deque[tuple[int, np.ndarray] | None] = deque([None] * ACC_LATENCY)

    async def start(self) -> None:
        for name in ("tag", "acc_read__valid", "acc_read__addr", "shift__data"):
            getattr(self.dut, name).value = 0
        for c in range(C):
            getattr(self.dut, f"psum__{c}").value = 0
        await reset(self.dut)
        for address in range(WORDS):  # contents are unknown: overwrite them
            await self.step({"valid": 1, "write": 1, "address": address}, [0] * C)
        for _ in range(LEAD + 1):
            await self.step()

    async def step(self, tag=None, psum=None, read: int | None = None) -> bool:
        """Returns whether the vector read was accepted."""
        dut = self.dut
        tag = dict.fromkeys(LAYOUT.members, 0) | (tag or {})
        self.rows.insert(0, (tag, psum or [0] * C))
        now, sums = self.rows[LEAD] if len(self.rows) > LEAD else ({"valid": 0}, [0] * C)
        dut.tag.value = LAYOUT.const(tag).as_bits()
        for c in range(C):
            getattr(dut, f"psum__{c}").value = sums[c]
        dut.shift__data.value = self.shift % 64
        dut.acc_read__valid.value = int(read is not None)
        dut.acc_read__addr.value = read or 0
        await settle()

        # The vector unit loses exactly when the array reads the same bank.
        address = read or 0
        lost = tag["valid"] and tag["read"] and tag["address"] % 2 == address % 2
        accepted = not lost and read is not None
        assert int(dut.acc_read__ready.value) == int(not lost)
        if read is not None:
            assert int(dut.acc_read__out_of_range.value) == int(read >= WORDS)
        arriving = self.reads.popleft()
        assert int(dut.acc_read__data_valid.value) == int(arriving is not None)
        if arriving is not None and arriving[0] < WORDS:
            raw = int(dut.acc_read__data.value).to_bytes(4 * C, "little")
            np.testing.assert_array_equal(np.frombuffer(raw, "<i4"), arriving[1])
        asked = (address, self.memory[address % WORDS].copy()) if accepted else None
        if now["valid"] and now["write"]:
            old = self.memory[now["address"]].astype(np.int64) * now["read"]
            if now["rescale"]:
                old = scale_by_power(old, 8 if now.get("by_byte") else SHIFTS[now["slot"]])
            total = (old + np.array(sums, dtype=np.int64)).astype(np.int32)
            if now["row_max"]:
                keep = np.array([now["keep"] >> c & 1 for c in range(C)], bool)
                total = np.where(keep, total, np.int32(MASKED_SCORE))
            results = [getattr(dut, f"result__{c}").value.to_signed() for c in range(C)]
            assert results == total.tolist()
            assert int(dut.counts.value) == (1 << now["valid_keys"]) - 1
            if asked is not None and read == now["address"]:
                asked = (WORDS, asked[1])  # a collision: anything may come
            self.memory[now["address"]] = total
        self.reads.append(asked)
        self.shift = SHIFTS[int(dut.shift__slot.value) % CONFIG.row_slots]
        await edge(dut)
        del self.rows[LEAD + 1 :]
        return accepted


def random_psum(rng: random.Random) -> list[int]:
    kind = rng.randrange(3)
    if kind == 0:
        return [rng.choice((LARGEST, -LARGEST - 1, 0, -1)) for _ in range(C)]
    return [rng.randint(-LARGEST - 1, LARGEST) for _ in range(C)]


@cocotb.test
async def random_rows(dut):
    rng = random.Random(int(os.environ.get("WEFT_TEST_SEED", "3")))
    model = Model(dut)
    await model.start()
    recent: list[int | None] = []
    for _ in range(int(os.environ.get("WEFT_TEST_CYCLES", "2500"))):
        tag = None
        address = rng.randrange(min(WORDS, 12))
        if rng.random() < 0.85:
            tag = {
                "valid": 1,
                "write": int(rng.random() < 0.9),
                "read": int(address not in recent[: Accumulator.hazard_distance - 1])
                and rng.randrange(4) > 0,
                "rescale": rng.randrange(2),
                "row_max": rng.randrange(2),
                "address": address,
                "slot": rng.randrange(CONFIG.row_slots),
                "valid_keys": rng.randint(0, C),
                "keep": rng.getrandbits(C),  # MASKED_SCORE brings sums near the limits
            }
            tag["read"] = int(tag["read"])
            tag |= {"by_byte": rng.randrange(2)} if CONFIG.decoder else {}
        recent.insert(0, address if tag else None)
        read = rng.choice(
            [None, rng.randrange(WORDS), rng.randrange(min(WORDS, 12)), WORDS, WORDS + 5]
        )
        await model.step(tag, random_psum(rng), read)
    for address in range(WORDS):
        assert await model.step(read=address) or address < LEAD
    for _ in range(ACC_LATENCY):
        await model.step()


@cocotb.test
async def every_shift_rounds(dut):
    """All shifts on values at the rounding edges and at both ends of the range."""
    model = Model(dut)
    await model.start()
    base = {"valid": 1, "write": 1}
    for (slot, shift), by_byte in itertools.product(enumerate(SHIFTS), BY_BYTE):
        shift = 8 if by_byte else shift
        rescale = {"read": 1, "rescale": 1, "slot": slot} | ({"by_byte": 1} if by_byte else {})
        for high in (-1, 0, 1, MASKED_SCORE):
            # Build a value in place: overwrite, then add; MASKED_SCORE comes from the mask.
            masked = high == MASKED_SCORE
            await model.step(base | {"row_max": int(masked)}, [high if not masked else 0] * C)
            for _ in range(LEAD):
                await model.step()
            half = 1 << max(shift - 1, 0)
            offsets = [half - 1, half, half + 1, -half, 0, 3 * half]
            psum = [max(min(offsets[c % 6], LARGEST), -LARGEST) for c in range(C)]
            await model.step(base | {"read": 1}, psum)
            for _ in range(LEAD):
                await model.step()
            await model.step(base | rescale, [0] * C)
            for _ in range(LEAD):
                await model.step(read=1)


@cocotb.test
async def vector_unit_always_finds_a_bank(dut):
    """While the array reads alternate rows, a read stream of its own waits once at most."""
    model = Model(dut)
    await model.start()
    lost = 0
    read = 0
    for i in range(4 * WORDS):
        tag = {"valid": 1, "write": 1, "read": 1, "address": i % WORDS}
        ok = await model.step(tag, [1] * C, (read + 6) % WORDS)
        read += ok
        lost += not ok
    assert lost <= 1


@cocotb.test
async def one_address_at_the_hazard_distance(dut):
    model = Model(dut)
    await model.start()
    additions = 6
    for i in range(additions * Accumulator.hazard_distance):
        add = i % Accumulator.hazard_distance == 0
        tag = {"valid": 1, "write": 1, "read": 1, "address": 3} if add else None
        await model.step(tag, [7] * C)
    for _ in range(LEAD):
        await model.step()
    await model.step(read=3)
    for _ in range(ACC_LATENCY):
        await model.step()
    assert (model.memory[3] == 7 * additions).all()
