"""Commands of an SDRAM: rows, columns and refresh, each at the right time."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from amaranth import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from boards.memory.sdram_part import WORD_BYTES, SdramCycles, SdramPart

__all__ = ["BLOCK_BYTES", "SdramCommands", "beat_layout", "make_plan", "request_layout"]

BLOCK_BYTES = 128
"""Unit of scheduling. A power of two, and no larger than a row."""

POWER_UP_REFRESHES = 8


def request_layout(part: SdramPart, data_bytes: int) -> data.StructLayout:
    """Beats `start` to `end` of a block: 1 to `BLOCK_BYTES` / `data_bytes`.

    block: within the row. last: the last of its burst. error: no memory is there, only the beats
    are to be counted out.
    """
    block_bits = exact_log2(BLOCK_BYTES // data_bytes)
    return data.StructLayout(
        {
            "start": unsigned(block_bits),
            "end": unsigned(block_bits),
            "block": unsigned(part.column_bits - exact_log2(BLOCK_BYTES // WORD_BYTES)),
            "bank": unsigned(part.bank_bits),
            "row": unsigned(part.row_bits),
            "write": 1,
            "last": 1,
            "error": 1,
        }
    )


def beat_layout() -> data.StructLayout:
    """A beat whose READ or WRITE is on the pins in the next cycle. last: of its burst. error: no
    command goes out, but the beat is counted."""
    return data.StructLayout({"valid": 1, "write": 1, "last": 1, "error": 1})


@dataclass(frozen=True)
class Plan:
    """Times in cycles, and words of a beat.

    cycles: of the part. open: activation to precharge, long enough that t_rc follows with t_rp.
    drain: from a refresh that is due to its command, at most. interval: of refresh.
    """

    cycles: SdramCycles
    words: int
    open: int
    drain: int
    interval: int


def make_plan(part: SdramPart, hz: float, data_bytes: int) -> Plan:
    """Raises `ValueError` for another width than 4, 8 or 16 bytes, and where refresh would take
    all the time of so slow a clock."""
    if data_bytes not in (4, 8, 16):
        raise ValueError(f"a beat must have 4, 8 or 16 bytes: {data_bytes}")
    words = data_bytes // WORD_BYTES
    cycles = part.cycles(hz)
    open_cycles = max(cycles.ras, cycles.rc - cycles.rp)
    around = open_cycles + words + cycles.wr + cycles.rp + cycles.rcd + cycles.rrd
    drain = 3 * (BLOCK_BYTES // WORD_BYTES + around + part.cas_latency + 8)
    # Every row is refreshed once in as many intervals as there are rows, once by `drain` late.
    interval = (cycles.retention - drain) // part.rows
    start_up = cycles.rp + POWER_UP_REFRESHES * cycles.rfc + cycles.mrd
    if interval <= max(drain + cycles.rfc, start_up):
        raise ValueError(
            f"{hz / 1e6:g} MHz is too slow for this memory: a row must be refreshed every "
            f"{cycles.retention // part.rows} cycles"
        )
    return Plan(cycles, words, open_cycles, drain, interval)


class State(enum.Enum):
    IDLE = 0
    LOOKUP = 1
    PRECHARGE = 2
    ACTIVATE = 3
    READY = 4
    DRAIN = 5
    REFRESH = 6
    MODE = 7


def _ones(count: int) -> int:
    return (1 << max(count, 0)) - 1


class SdramCommands(wiring.Component):
    """Carries out requests in order, a beat (a burst of the part) for each READ or WRITE.

    One request moves data while the next waits with its row open and the one after it gets its
    row: `current`, `ahead`, `request`. A fourth, `coming`, is compared with the open rows. Rows
    stay open until another row of the bank is needed, or a refresh. Columns go first on the
    command bus; they leave every other cycle free.

    A refresh becomes due at fixed intervals. From then on `coming` stays where it is; the three
    before it are finished, all banks are closed and the refresh is issued: after `Plan.drain`
    cycles at most, for which the interval leaves room.

    A wait is a shift register with a one for each cycle left, so that to extend it is to OR.

    Latency: 6 cycles from a request to its first READ or WRITE on the pins if the row is open.
    Throughput: peak, in long requests; a request in two cycles. Flow control: `i` is a stream
    whose `ready` is a register, `beat` must be followed.

    Parameters
    ----------
    part, hz: of memory and clock. data_bytes: of a beat: 4, 8 or 16.

    Members
    -------
    i: `request_layout`. beat: `beat_layout`.
    booting: no refresh and no mode register yet. cs, ras, cas, we, ba, a: as in `SdramPins`.

    Raises `ValueError` as `make_plan` does.
    """

    def __init__(self, part: SdramPart, hz: float, data_bytes: int):
        self.part = part
        self._plan = make_plan(part, hz, data_bytes)
        self._request = request_layout(part, data_bytes)
        super().__init__(
            {
                "i": In(stream.Signature(self._request)),
                "beat": Out(beat_layout()),
                "booting": Out(1),
                "cs": Out(1),
                "ras": Out(1),
                "cas": Out(1),
                "we": Out(1),
                "ba": Out(2),
                "a": Out(13),
            }
        )

    def elaborate(self, platform):
        m = Module()
        part, plan = self.part, self._plan
        cycles, words = plan.cycles, plan.words
        state = Signal(State, init=State.DRAIN)
        coming, request = Signal(self._request), Signal(self._request)
        coming_valid, take = Signal(), Signal()
        m.d.comb += self.i.ready.eq(~coming_valid)
        with m.If(~coming_valid):
            m.d.sync += [coming.eq(self.i.payload), coming_valid.eq(self.i.valid)]
        with m.Elif(take):
            m.d.sync += coming_valid.eq(0)

        # --- waits ----------------------------------------------------------------------------
        def wait(name: str, longest: int) -> Signal:
            """Down by one in each cycle; assignments that come later extend it."""
            left = Signal(max(longest, 1), name=name)
            m.d.sync += left.eq(left >> 1)
            return left

        def extend(left: Signal, count: int) -> None:
            m.d.sync += left.eq((left >> 1) | _ones(count))

        to_write = part.cas_latency + words  # dq is free for one cycle between the two
        read_wait, write_wait = wait("read_wait", words - 1), wait("write_wait", to_write)
        # A row may follow another after t_rrd: two more states pass in between, as they do
        # between READY and the first column.
        after_activate = max(cycles.rcd, cycles.rrd, 3) - 3
        row_wait = wait(
            "row_wait", max(after_activate, cycles.rp - 1, cycles.rfc - 1, cycles.mrd - 1)
        )
        before_close = max(plan.open - 1, words - 1, words + cycles.wr - 2)
        close_wait = [wait(f"close_wait_{bank}", before_close) for bank in range(part.banks)]

        # --- columns: `current` moves data, `ahead` is next -----------------------------------
        current, ahead = Signal(self._request), Signal(self._request)
        current_valid, ahead_valid = Signal(), Signal()
        go, done, push = Signal(), Signal(), Signal()
        m.d.comb += [
            go.eq(current_valid & ~Mux(current.write, write_wait[0], read_wait[0])),
            done.eq(go & (current.start == current.end)),
            self.beat.valid.eq(go),
            self.beat.write.eq(current.write),
            self.beat.last.eq(current.last & (current.start == current.end)),
            self.beat.error.eq(current.error),
        ]
        with m.If(go):
            m.d.sync += current.start.eq(current.start + 1)
            extend(read_wait, words - 1)
            extend(write_wait, words - 1)
            with m.If(~current.write):
                extend(write_wait, to_write)
        for bank in range(part.banks):
            with m.If(go & (current.bank == bank)):
                extend(close_wait[bank], words - 1)
                with m.If(current.write):
                    extend(close_wait[bank], words + cycles.wr - 2)
        with m.If(done):
            m.d.sync += current_valid.eq(0)
        with m.If(ahead_valid & (~current_valid | done)):
            m.d.sync += [current.eq(ahead), current_valid.eq(1), ahead_valid.eq(0)]
        with m.If(push):
            m.d.sync += [ahead.eq(request), ahead_valid.eq(1)]

        # --- refresh is due -------------------------------------------------------------------
        due = Signal()
        longest = max(cycles.power_up, plan.interval)
        countdown = Signal(longest.bit_length() + 1, init=cycles.power_up - 2)
        m.d.sync += countdown.eq(countdown - 1)
        with m.If(countdown[-1]):
            m.d.sync += [countdown.eq(plan.interval - 2), due.eq(1)]

        # --- rows -----------------------------------------------------------------------------
        opened = Signal(part.banks)
        rows = Array(Signal(part.row_bits, name=f"row_{bank}") for bank in range(part.banks))
        used, may_close = Signal(), Signal()
        m.d.comb += [
            used.eq(
                (current_valid & (current.bank == request.bank))
                | (ahead_valid & (ahead.bank == request.bank))
            ),
            may_close.eq(~Array(left[0] for left in close_wait)[request.bank] & ~used),
        ]
        precharge, activate, precharge_all, refresh, mode = (
            Signal(name=name)
            for name in ("precharge", "activate", "precharge_all", "refresh", "mode")
        )
        booting = Signal(init=1)
        m.d.comb += self.booting.eq(booting)
        boots_left = Signal(range(POWER_UP_REFRESHES), init=POWER_UP_REFRESHES - 1)
        free = Signal()
        m.d.comb += free.eq(~row_wait[0] & ~go)

        # Rows change in no cycle in which a request is taken, so all about its row is found out
        # then, from registers, and not in LOOKUP. A comparison for each bank, because to choose
        # a row first takes as many look-up tables and more time.
        row_hit, row_open = Signal(), Signal()
        hits = Cat(opened[bank] & (row == coming.row) for bank, row in enumerate(rows))
        m.d.sync += [
            row_hit.eq(coming.error | hits.bit_select(coming.bank, 1)),
            row_open.eq(opened.bit_select(coming.bank, 1)),
        ]

        def take_next() -> None:
            with m.If(due):
                m.d.sync += state.eq(State.DRAIN)
            with m.Elif(coming_valid):
                m.d.comb += take.eq(1)
                m.d.sync += [request.eq(coming), state.eq(State.LOOKUP)]
            with m.Else():
                m.d.sync += state.eq(State.IDLE)

        with m.Switch(state):
            with m.Case(State.IDLE):
                take_next()
            with m.Case(State.LOOKUP):
                with m.If(row_hit):
                    m.d.sync += state.eq(State.READY)
                with m.Elif(row_open):
                    m.d.sync += state.eq(State.PRECHARGE)
                with m.Else():
                    m.d.sync += state.eq(State.ACTIVATE)
            with m.Case(State.PRECHARGE):
                m.d.comb += precharge.eq(~go & may_close)
                with m.If(precharge):
                    m.d.sync += state.eq(State.ACTIVATE)
                    extend(row_wait, cycles.rp - 1)
            with m.Case(State.ACTIVATE):
                m.d.comb += activate.eq(free)
                with m.If(free):
                    m.d.sync += state.eq(State.READY)
                    m.d.sync += rows[request.bank].eq(request.row)
                    m.d.sync += opened.bit_select(request.bank, 1).eq(1)
                    extend(row_wait, after_activate)
            with m.Case(State.READY):
                with m.If(~row_wait[0] & ~ahead_valid):
                    m.d.comb += push.eq(1)
                    take_next()
            with m.Case(State.DRAIN):
                idle = ~current_valid & ~ahead_valid & ~Cat(left[0] for left in close_wait).any()
                m.d.comb += precharge_all.eq(due & idle)
                with m.If(precharge_all):
                    m.d.sync += [state.eq(State.REFRESH), opened.eq(0)]
                    extend(row_wait, cycles.rp - 1)
            with m.Case(State.REFRESH):
                m.d.comb += refresh.eq(free)
                with m.If(free):
                    m.d.sync += due.eq(0)
                    extend(row_wait, cycles.rfc - 1)
                    with m.If(~booting):
                        m.d.sync += state.eq(State.IDLE)
                    with m.Elif(boots_left == 0):
                        m.d.sync += state.eq(State.MODE)
                    with m.Else():
                        m.d.sync += boots_left.eq(boots_left - 1)
            with m.Case(State.MODE):
                m.d.comb += mode.eq(free)
                with m.If(free):
                    m.d.sync += [state.eq(State.IDLE), booting.eq(0)]
                    extend(row_wait, cycles.mrd - 1)
        for bank in range(part.banks):
            with m.If(activate & (request.bank == bank)):
                extend(close_wait[bank], plan.open - 1)

        # --- pins: the kind of command is late, the addresses are early -----------------------
        column = Cat(Const(0, exact_log2(words)), current.start, current.block)
        all_banks = 1 << 10
        mode_register = exact_log2(words) | (part.cas_latency << 4)
        m.d.sync += [
            self.cs.eq(
                (go & ~current.error) | precharge | activate | precharge_all | refresh | mode
            ),
            self.ras.eq(~go),
            self.cas.eq(go | refresh | mode),
            self.we.eq(Mux(go, current.write, precharge | precharge_all | mode)),
            self.ba.eq(Mux(go, current.bank, Mux(mode, 0, request.bank))),
            self.a.eq(column),
        ]
        with m.If(activate):
            m.d.sync += self.a.eq(request.row)
        with m.Elif(mode):
            m.d.sync += self.a.eq(mode_register)
        with m.Elif(~go):
            m.d.sync += self.a.eq(Mux(precharge_all, all_banks, 0))
        return m
