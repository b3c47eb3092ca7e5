"""A stand-in for `System` that writes its SDRAM and reads it back."""

from amaranth import Cat, DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.memory.pins import SdramPins
from boards.memory.sdram import SdramController
from hw.dma.axi import Burst, Response

BURSTS, BEATS, BEAT_BYTES = 16, 8, 4
STRIDE = 1056
"""Bytes from burst to burst: other rows, banks and columns."""


def word(beat):
    """Of a beat's number: every one has both levels of every pin near another."""
    return Cat(beat, ~beat, beat[:4], beat ^ 0x55)[:32]


class MemoryCheck(wiring.Component):
    """`interrupt`: done. `tx`: every word came back as it was written. One clock: the memory's."""

    def __init__(self, config, memory, *, hz, memory_hz, baud, pad_cycles):
        self._memory = SdramController(
            memory, hz=memory_hz, data_bytes=BEAT_BYTES, pad_cycles=pad_cycles
        )
        super().__init__(
            {"rx": In(1), "tx": Out(1), "interrupt": Out(1), "sdram": Out(SdramPins())}
        )

    def elaborate(self, platform):
        m = Module()
        memory = self._memory
        m.submodules.memory = DomainRenamer("memory")(memory)
        wiring.connect(m, memory.pins, wiring.flipped(self.sdram))
        axi = memory.axi
        burst, beat = Signal(range(BURSTS)), Signal(range(BEATS))
        right = Signal(range(BURSTS * BEATS + 1))
        address = Signal(32)
        number = Cat(beat, burst, 0)
        for channel in "rw":
            m.d.comb += [
                getattr(axi, f"a{channel}addr").eq(address),
                getattr(axi, f"a{channel}len").eq(BEATS - 1),
                getattr(axi, f"a{channel}size").eq(2),
                getattr(axi, f"a{channel}burst").eq(Burst.INCR),
            ]
        m.d.comb += [
            axi.wdata.eq(word(number)),
            axi.wstrb.eq(-1),
            axi.wlast.eq(beat == BEATS - 1),
            axi.bready.eq(1),
            axi.rready.eq(1),
            self.tx.eq(right == BURSTS * BEATS),
        ]

        def burst_done(last):
            m.d.memory += [beat.eq(0), burst.eq(burst + 1), address.eq(address + STRIDE)]
            with m.If(burst == BURSTS - 1):
                m.d.memory += address.eq(0)
                m.next = last

        with m.FSM(domain="memory"):
            with m.State("WRITE"):
                m.d.comb += axi.awvalid.eq(1)
                with m.If(axi.awready):
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += axi.wvalid.eq(1)
                with m.If(axi.wready):
                    m.d.memory += beat.eq(beat + 1)
                    with m.If(axi.wlast):
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                with m.If(axi.bvalid):
                    m.next = "WRITE"
                    burst_done("READ")
            with m.State("READ"):
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "TAKE"
            with m.State("TAKE"):
                with m.If(axi.rvalid):
                    m.d.memory += beat.eq(beat + 1)
                    with m.If((axi.rdata == word(number)) & (axi.rresp == Response.OKAY)):
                        m.d.memory += right.eq(right + 1)
                    with m.If(axi.rlast):
                        m.next = "READ"
                        burst_done("DONE")
            with m.State("DONE"):
                m.d.comb += self.interrupt.eq(1)
        return m
