"""The behavioural memory itself: least times are enough, and each broken rule has its code."""

import json
import os

import cocotb
from cocotb.triggers import RisingEdge

from sim.sdram import Violation
from tests.stream_helpers import start

T = json.loads(os.environ.get("WEFT_CYCLES", "{}"))
CL = 3
BURST = 2
MODE = CL << 4 | 1
ALL = 1 << 10
COMMANDS = {  # ras, cas, we
    "mode": (1, 1, 1),
    "refresh": (1, 1, 0),
    "precharge": (1, 0, 1),
    "activate": (1, 0, 0),
    "write": (0, 1, 1),
    "read": (0, 1, 0),
    "stop": (0, 0, 1),
}


class Chip:
    """Gives the model one command after the other, `after` cycles from the one before."""

    def __init__(self, dut):
        self.dut = dut
        self.cycle = 0
        self.taken: list[int] = []  # what the pins showed at each edge

    def idle(self) -> None:
        for name in ("cs", "ras", "cas", "we", "dq_oe"):
            getattr(self.dut, f"pins__{name}").value = 0
        self.dut.pins__dqm.value = 0
        self.dut.pins__clk_en.value = 1

    async def wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await RisingEdge(self.dut.clk)
            self.taken.append(int(self.dut.pins__dq_i.value))
            self.idle()

    async def give(self, name: str, *, after: int = 1, ba: int = 0, a: int = 0) -> None:
        """The command is taken `after` cycles from the last one; returns when it was taken."""
        await self.wait(after - 1)
        pins = zip(("ras", "cas", "we"), COMMANDS[name], strict=True)
        for pin, value in pins:
            getattr(self.dut, f"pins__{pin}").value = value
        self.dut.pins__cs.value = 1
        self.dut.pins__ba.value, self.dut.pins__a.value = ba, a
        await self.wait(1)

    async def write(self, words, *, after: int, ba: int = 0, a: int = 0, masks=(0, 0)) -> None:
        """Returns when the last word was taken."""
        await self.wait(after - 1)
        for i, (word, mask) in enumerate(zip(words, masks, strict=True)):
            self.dut.pins__dq_oe.value, self.dut.pins__dq_o.value = 1, word
            self.dut.pins__dqm.value = mask
            if i == 0:
                await self.give("write", ba=ba, a=a)
            else:
                await self.wait(1)

    async def read(self, *, after: int, ba: int = 0, a: int = 0) -> list[int]:
        """Returns when the last word was captured."""
        await self.give("read", after=after, ba=ba, a=a)
        await self.wait(CL - 1 + BURST)
        return self.taken[-BURST:]

    async def power_up(self, *, early: int = 0, refreshes: int = 8, mode: int = MODE) -> None:
        await self.wait(T["T_POWER_UP"] - early)
        await self.give("precharge", a=ALL)
        await self.give("refresh", after=T["T_RP"])
        for _ in range(refreshes - 1):
            await self.give("refresh", after=T["T_RFC"])
        await self.give("mode", after=T["T_RFC"], a=mode)

    @property
    def violations(self) -> tuple[int, Violation]:
        return int(self.dut.violations.value), Violation(int(self.dut.first_code.value))


async def begin(dut) -> Chip:
    """Switched off and on."""
    await start(dut, off=1)
    chip = Chip(dut)
    chip.idle()
    dut.off.value = 0
    return chip


async def row_cycle(chip: Chip, short: str = "") -> None:
    """Open a row, write, close, open another one, close: each step as early as it may be, and the
    one that waits for the time `short` a cycle before that."""
    least = T | ({short: T[short] - 1} if short else {})
    await chip.give("activate", after=least["T_MRD"], ba=1, a=3)
    await chip.write([0xCAFE, 0xF00D], after=least["T_RCD"], ba=1, a=4)
    await chip.give("precharge", after=least["T_WR"], ba=1)
    await chip.give("activate", after=least["T_RP"], ba=1, a=5)
    await chip.give("activate", after=least["T_RRD"], ba=2, a=5)
    await chip.wait(T["T_RAS"])
    await chip.give("precharge", a=ALL)
    await chip.give("refresh", after=T["T_RP"])
    await chip.give("activate", after=least["T_RFC"], ba=0, a=1)


async def short_row(chip: Chip, ras: int, rp: int) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=3, a=1)
    await chip.give("precharge", after=ras, ba=3)
    await chip.give("activate", after=rp, ba=3, a=2)


async def turn(chip: Chip, gap: int) -> None:
    await chip.give("activate", after=T["T_MRD"])
    await chip.give("read", after=T["T_RCD"])
    await chip.write([1, 2], after=CL + BURST + gap)


async def unready(chip: Chip) -> None:
    await chip.wait(T["T_POWER_UP"])
    await chip.give("activate")


async def closed(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.give("read", after=T["T_RCD"], ba=2)


async def twice(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.give("activate", after=T["T_RC"], ba=1)


async def refresh_open(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.give("refresh", after=T["T_RC"])


async def mode_open(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.give("mode", after=T["T_RC"], a=MODE)


async def kept_open(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.wait(T["T_RAS_MAX"] + 2)


async def undriven(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], ba=1)
    await chip.give("write", after=T["T_RCD"], ba=1)


async def late(chip: Chip) -> None:
    await chip.wait(T["T_RETENTION"])
    await chip.give("activate", ba=1, a=12)


async def far_row(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"], a=1 << T["ROW_BITS"])


async def far_column(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"])
    await chip.give("read", after=T["T_RCD"], a=1 << T["COLUMN_BITS"])


async def own_precharge(chip: Chip) -> None:
    await chip.give("activate", after=T["T_MRD"])
    await chip.give("read", after=T["T_RCD"], a=ALL)


async def sleep(chip: Chip) -> None:
    chip.dut.pins__clk_en.value = 0
    await chip.wait(1)


BROKEN = {
    "power_up": (Violation.POWER_UP, None, {"early": 1}),
    "unready": (Violation.INITIALISATION, unready, None),
    "few_refreshes": (Violation.INITIALISATION, None, {"refreshes": 7}),
    "page_burst": (Violation.UNSUPPORTED, None, {"mode": CL << 4 | 7}),
    "mode_open": (Violation.MODE, mode_open, {}),
    "twice": (Violation.BANK_OPEN, twice, {}),
    "closed": (Violation.BANK_CLOSED, closed, {}),
    "refresh_open": (Violation.REFRESH_OPEN, refresh_open, {}),
    "rcd": (Violation.RCD, lambda c: row_cycle(c, "T_RCD"), {}),
    "rp": (Violation.RP, lambda c: row_cycle(c, "T_RP"), {}),
    "ras": (Violation.RAS, lambda c: short_row(c, T["T_RAS"] - 1, T["T_RC"]), {}),
    "ras_max": (Violation.RAS_MAX, kept_open, {}),
    "rc": (Violation.RC, lambda c: short_row(c, T["T_RAS"], T["T_RC"] - 1 - T["T_RAS"]), {}),
    "rfc": (Violation.RFC, lambda c: row_cycle(c, "T_RFC"), {}),
    "rrd": (Violation.RRD, lambda c: row_cycle(c, "T_RRD"), {}),
    "wr": (Violation.WR, lambda c: row_cycle(c, "T_WR"), {}),
    "mrd": (Violation.MRD, lambda c: row_cycle(c, "T_MRD"), {}),
    "contention": (Violation.CONTENTION, lambda c: turn(c, 0), {}),
    "undriven": (Violation.UNDRIVEN, undriven, {}),
    "late": (Violation.RETENTION, late, {}),
    "own_precharge": (Violation.UNSUPPORTED, own_precharge, {}),
    "sleep": (Violation.UNSUPPORTED, sleep, {}),
    "far_row": (Violation.ADDRESS, far_row, {}),
    "far_column": (Violation.ADDRESS, far_column, {}),
}
"""What is broken: code, steps after power-up, changes to power-up (None: no power-up)."""


@cocotb.test()
@cocotb.parametrize(rule=list(BROKEN))
async def broken_rule(dut, rule):
    """Broken once, by one cycle where it is a time."""
    code, steps, start_up = BROKEN[rule]
    chip = await begin(dut)
    if start_up is not None:
        await chip.power_up(**start_up)
    if steps is not None:
        assert chip.violations == (0, Violation.NONE)
        await steps(chip)
    await chip.wait(1)
    count, first = chip.violations
    assert first == code and count >= 1, (count, first)


@cocotb.test()
async def least_times(dut):
    """Everything as early as the rules allow: nothing is broken, and the words are right."""
    chip = await begin(dut)
    await chip.power_up()
    await row_cycle(chip)
    await chip.give("precharge", after=T["T_RAS"], ba=0)
    await short_row(chip, T["T_RAS"], T["T_RC"] - T["T_RAS"])
    await chip.wait(T["T_RC"])
    await turn(chip, 1)
    await chip.give("activate", after=T["T_RRD"], ba=1, a=3)
    assert await chip.read(after=T["T_RCD"], ba=1, a=4) == [0xCAFE, 0xF00D]
    # Columns wrap in their burst; masked bytes stay.
    assert await chip.read(after=1, ba=1, a=5) == [0xF00D, 0xCAFE]
    await chip.write([0x1122, 0x3344], after=2, ba=1, a=4, masks=(0b01, 0b10))
    assert await chip.read(after=1, ba=1, a=4) == [0x11FE, 0xF044]
    # A mask hides what leaves two cycles later.
    await chip.give("read", ba=1, a=4)
    await chip.wait(CL - 3)
    dut.pins__dqm.value = 0b10
    await chip.wait(3)
    assert chip.taken[-1] == 0xDEFE
    assert chip.violations == (0, Violation.NONE)


@cocotb.test()
async def forgotten(dut):
    """A row keeps its words until the last cycle of its retention, and loses them in the next."""
    chip = await begin(dut)
    await chip.power_up()
    for row, late in ((9, 0), (10, 1)):
        for _ in range(1 << T["ROW_BITS"]):
            await chip.give("refresh", after=T["T_RFC"])
        await chip.give("activate", after=T["T_RFC"], ba=2, a=row)
        await chip.write([0xCAFE, 0xF00D], after=T["T_RCD"], ba=2)
        await chip.give("precharge", after=T["T_RC"], ba=2)
        before, _ = chip.violations
        await chip.give("activate", after=T["T_RETENTION"] + late, ba=2, a=row)
        words = await chip.read(after=T["T_RCD"], ba=2)
        assert (words == [0xCAFE, 0xF00D]) == (late == 0)
        assert chip.violations[0] - before == late
        await chip.give("precharge", ba=2)
        await chip.wait(T["T_RP"])
    # The loss is for good; a row that is refreshed keeps what it has.
    await chip.give("activate", after=T["T_RP"], ba=2, a=10)
    assert await chip.read(after=T["T_RCD"], ba=2) == words
    await chip.write([1, 2], after=2, ba=2)
    await chip.give("precharge", after=T["T_WR"], ba=2)
    for _ in range(3):
        for _ in range(1 << T["ROW_BITS"]):
            await chip.give("refresh", after=T["T_RETENTION"] // (1 << T["ROW_BITS"]))
    await chip.give("activate", after=T["T_RFC"], ba=2, a=10)
    assert await chip.read(after=T["T_RCD"], ba=2) == [1, 2]
