"""Data of an SDRAM controller: from the W channel to the pins, from the pins to the R channel."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from boards.memory.sdram_commands import beat_layout
from boards.memory.sdram_part import WORD_BYTES

__all__ = ["ReadData", "WriteData"]

WORD_BITS = 8 * WORD_BYTES


class WriteData(wiring.Component):
    """Buffers beats of the W channel and gives each to the pins when its WRITE is there.

    The beats that a block takes are claimed when the block is accepted, at least 3 cycles before
    its first beat. `beat` comes every other cycle at most.

    Latency: 2 cycles until a beat that was taken, or a claim, shows in `beats`. Throughput: a beat
    a cycle in, a word a cycle out. Flow control: AXI4; `beat` must be followed.

    Members
    -------
    data, strobe, valid, ready: the W channel. beats: buffered and not claimed. claim: beats
    claimed in this cycle. beat: `SdramCommands.beat`. booting: masks stay set.
    dq_o, dq_oe, dqm: pins, in the cycle after `beat`.
    """

    def __init__(self, *, data_bytes: int, depth: int, block_beats: int):
        self._data_bytes = data_bytes
        self._depth = depth
        super().__init__(
            {
                "data": In(8 * data_bytes),
                "strobe": In(data_bytes),
                "valid": In(1),
                "ready": Out(1),
                "beats": Out(range(depth + 1)),
                "claim": In(range(block_beats + 1)),
                "beat": In(beat_layout()),
                "booting": In(1),
                "dq_o": Out(WORD_BITS),
                "dq_oe": Out(1),
                "dqm": Out(WORD_BYTES),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = data.StructLayout({"data": 8 * self._data_bytes, "strobe": self._data_bytes})
        # One more than a power of two: the FIFO keeps one entry outside its memory.
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=entry.size, depth=self._depth + 1)
        m.d.comb += [
            beats.w_data.eq(Cat(self.data, self.strobe)),
            beats.w_en.eq(self.valid),
            self.ready.eq(beats.w_rdy),
        ]
        # Both are known too late for an adder.
        came, claimed = Signal(), Signal.like(self.claim)
        m.d.sync += [
            came.eq(self.valid & self.ready),
            claimed.eq(self.claim),
            self.beats.eq(self.beats + came - claimed),
        ]

        # The next beat, in a register: block RAM is slow to answer. It is fetched in the cycle
        # after `used`, not with it: a beat has two words at least, so there is the time.
        head = Signal(entry)
        filled, used = Signal(), Signal()
        m.d.comb += [
            used.eq(self.beat.valid & self.beat.write),
            beats.r_en.eq(~filled),
        ]
        with m.If(used):
            m.d.sync += filled.eq(0)
        with m.Elif(~filled):
            m.d.sync += [head.eq(beats.r_data), filled.eq(beats.r_rdy)]

        words, masks = Signal(8 * self._data_bytes), Signal(self._data_bytes, init=-1)
        driven = Signal(self._data_bytes // WORD_BYTES)
        m.d.comb += [
            self.dq_o.eq(words[:WORD_BITS]),
            self.dqm.eq(masks[:WORD_BYTES]),
            self.dq_oe.eq(driven[0]),
        ]
        with m.If(used):
            m.d.sync += [
                words.eq(head.data),
                masks.eq(~head.strobe),
                driven.eq(Mux(self.beat.error, 0, -1)),
            ]
        with m.Else():
            m.d.sync += [
                words.eq(words >> WORD_BITS),
                masks.eq(Cat(masks[WORD_BYTES:], self.booting.replicate(WORD_BYTES))),
                driven.eq(driven >> 1),
            ]
        return m


class ReadData(wiring.Component):
    """Collects the words that READs bring and buffers the beats until the R channel takes them.

    Room is reserved when a block is accepted, so that no beat ever finds the buffer full.

    Latency: `delay` + words of a beat + 3 cycles from `beat` to `valid`. Throughput: a beat a
    cycle. Flow control: AXI4; beats come as READs bring them.

    Parameters
    ----------
    delay: cycles from a READ on the pins to the end of the cycle in which its first word is
    captured.

    Members
    -------
    data, last, error, valid, ready: the R channel. room: for a block at least. reserve: beats
    reserved in this cycle; `room` tells of them in the next one.
    beat: `SdramCommands.beat`. dq_i: pins.
    """

    def __init__(self, *, data_bytes: int, depth: int, block_beats: int, delay: int):
        self._data_bytes = data_bytes
        self._depth = depth
        self._block_beats = block_beats
        self._delay = delay
        super().__init__(
            {
                "data": Out(8 * data_bytes),
                "last": Out(1),
                "error": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "room": Out(1),
                "reserve": In(range(block_beats + 1)),
                "beat": In(beat_layout()),
                "dq_i": In(WORD_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = self._data_bytes // WORD_BYTES
        tag = data.StructLayout({"valid": 1, "last": 1, "error": 1})
        tags = Signal(data.ArrayLayout(tag, self._delay + words + 1))
        m.d.sync += tags.eq(
            Cat(self.beat.valid & ~self.beat.write, self.beat.last, self.beat.error, tags)
        )
        captured = Signal(8 * self._data_bytes)  # the last word on top
        m.d.sync += captured.eq(Cat(captured[WORD_BITS:], self.dq_i))

        arrived = tags[-1]
        entry = data.StructLayout({"data": 8 * self._data_bytes, "last": 1, "error": 1})
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=entry.size, depth=self._depth + 1)
        m.d.comb += [
            beats.w_data.eq(Cat(captured, arrived.last, arrived.error)),
            beats.w_en.eq(arrived.valid),
        ]
        free = Signal(range(self._depth + 1), init=self._depth)
        popped = beats.r_rdy & beats.r_en
        m.d.sync += free.eq(free + popped - self.reserve)
        m.d.comb += self.room.eq(free >= Const(self._block_beats))

        # In registers: block RAM is slow to answer.
        m.d.comb += beats.r_en.eq(~self.valid | self.ready)
        with m.If(beats.r_en):
            m.d.sync += [
                self.valid.eq(beats.r_rdy),
                Cat(self.data, self.last, self.error).eq(beats.r_data),
            ]
        return m
