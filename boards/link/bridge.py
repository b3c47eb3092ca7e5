"""Executes requests of the host on AXI4 and AXI4-Lite."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from boards.link.framing import PAYLOAD
from boards.link.protocol import (
    ANSWER,
    ANSWER_HEADER,
    ANSWER_TRAILER,
    INTERRUPT,
    REGISTERS,
    REQUEST_HEADER,
    Identity,
    Operation,
    Status,
)
from hw.dma.axi import Axi4Signature, AxiLiteSignature, Burst

__all__ = ["Bridge"]

WORD_BYTES = 4

HEADER = data.StructLayout(
    {"operation": 8, "sequence": 8, "session": 16, "address": 32, "count": 16}
)
"""`protocol.REQUEST_HEADER`."""


class Bridge(wiring.Component):
    """Requests in, answers out, one after the other.

    A request is executed once: its sequence number must be the one after that of the last
    request executed. Repetitions of writes are answered and not executed; repetitions of reads
    are executed again. A request that meets a bus error counts as not executed, which holds
    back those behind it until the host begins another session.

    Bytes pass through a word of 4 bytes, so addresses and counts need no alignment and a write
    touches the bytes of its data, no others. Each word is one transaction of one beat, and there
    is one at a time: a line brings a word in 160 cycles or more.

    Latency: 3 cycles from the last byte of a request's header to the first of its answer.
    Throughput: 4 bytes in 10 cycles and the time of a bus transaction. Flow control: streams, AXI.

    Parameters
    ----------
    identity: the answer to HELLO; its `data_bytes` is the width of `m_axi`.

    Members
    -------
    i: requests, o: answers, as `PAYLOAD`. m_axi, m_axil: memory and registers.
    i_interrupt: level, goes into every status.
    """

    def __init__(self, identity: Identity):
        self._identity = identity
        super().__init__(
            {
                "i": In(stream.Signature(PAYLOAD)),
                "o": Out(stream.Signature(PAYLOAD)),
                "m_axi": Out(Axi4Signature(32, identity.data_bytes)),
                "m_axil": Out(AxiLiteSignature()),
                "i_interrupt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header = Signal(HEADER)
        session, connected = Signal(16), Signal()
        expected = Signal(8)  # sequence number of the next request
        status = Signal(8)
        execute, advance = Signal(), Signal()
        ended = Signal()  # the last byte of the request was taken
        index = Signal(range(max(REQUEST_HEADER.size, len(self._identity.pack()))))
        word, strobe = Signal(8 * WORD_BYTES), Signal(WORD_BYTES)
        byte = self.i.payload.data
        lane = header.address[: exact_log2(WORD_BYTES)]
        # What is known of a request in COMPARE is in registers from then on.
        is_hello, is_read, is_fill, to_registers = (
            Signal(name=name) for name in ("is_hello", "is_read", "is_fill", "to_registers")
        )
        is_new, repeated, known, ours = (
            Signal(name=name) for name in ("is_new", "repeated", "known", "ours")
        )
        empty, final = Signal(), Signal()  # there were no bytes to move; this is the last one

        begin, got, wrote, failed, read_word = self._bus(
            m, header, word, strobe, is_read, to_registers
        )

        def step():
            m.d.sync += [
                header.address.eq(header.address + 1),
                header.count.eq(header.count - 1),
                final.eq(header.count == 2),
            ]

        def put(value, count: int, after: str):
            """Answer with the `count` bytes of `value`, then go on."""
            m.d.comb += [
                self.o.valid.eq(1),
                self.o.payload.data.eq(value.word_select(index[: (count - 1).bit_length()], 8)),
            ]
            with m.If(self.o.ready):
                m.d.sync += index.eq(index + 1)
                with m.If(index == count - 1):
                    m.d.sync += index.eq(0)
                    m.next = after

        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        header.eq(Cat(header.as_value()[8:], byte)),
                        ended.eq(self.i.payload.last),
                        index.eq(index + 1),
                    ]
                    with m.If(index == REQUEST_HEADER.size - 1):
                        m.d.sync += index.eq(0)
                        m.next = "COMPARE"
                    with m.Elif(self.i.payload.last):
                        m.d.sync += index.eq(0)

            with m.State("COMPARE"):
                # Numbers behind `expected` by up to half their range are repetitions.
                ahead = Signal(8)
                m.d.comb += ahead.eq(header.sequence - expected)
                m.d.sync += [
                    is_hello.eq(header.operation == Operation.HELLO),
                    is_read.eq(header.operation[:2] == Operation.READ),
                    is_fill.eq(header.operation[:2] == Operation.FILL),
                    to_registers.eq((header.operation & REGISTERS) != 0),
                    is_new.eq(header.sequence == expected),
                    repeated.eq(ahead[-1]),
                    known.eq(Cat(header.operation == operation for operation in Operation).any()),
                    ours.eq(connected & (header.session == session)),
                    empty.eq(header.count == 0),
                    final.eq(header.count == 1),
                ]
                m.next = "DECODE"

            with m.State("DECODE"):
                m.d.sync += [status.eq(Status.OK), execute.eq(0), advance.eq(0), strobe.eq(0)]
                with m.If(is_hello):
                    m.d.sync += [session.eq(header.session), connected.eq(1), expected.eq(0)]
                with m.Elif(~ours):
                    m.d.sync += status.eq(Status.SESSION)
                with m.Elif(~is_new & ~repeated):
                    m.d.sync += status.eq(Status.SEQUENCE)
                with m.Elif(~known):
                    m.d.sync += status.eq(Status.MALFORMED)
                with m.Else():
                    m.d.sync += [execute.eq(is_new | is_read), advance.eq(is_new)]
                m.next = "ANSWER"

            with m.State("ANSWER"):
                put(
                    Cat(header.operation | ANSWER, header.sequence, header.session),
                    ANSWER_HEADER.size,
                    "EXECUTE",
                )

            with m.State("EXECUTE"):
                with m.If(is_hello):
                    m.next = "IDENTITY"
                with m.Elif(~execute | empty):
                    m.next = "TRAILER"
                with m.Elif(is_read):
                    m.next = "BEGIN"
                with m.Else():
                    m.next = "TAKE"

            with m.State("IDENTITY"):
                identity = self._identity.pack()
                put(Const.cast(Cat(Const(b, 8) for b in identity)), len(identity), "TRAILER")

            with m.State("TAKE"):  # a byte to write
                m.d.comb += self.i.ready.eq(~is_fill & ~ended)
                with m.If(~is_fill & ended):
                    m.d.sync += status.eq(Status.MALFORMED)
                    m.next = "TRAILER"
                with m.Elif(is_fill | self.i.valid):
                    m.d.sync += [
                        word.word_select(lane, 8).eq(Mux(is_fill, 0, byte)),
                        strobe.bit_select(lane, 1).eq(1),
                    ]
                    with m.If(~is_fill):
                        m.d.sync += ended.eq(self.i.payload.last)
                    with m.If(lane.all() | final):
                        m.d.comb += begin.eq(1)
                        m.next = "BUS"
                    with m.Else():
                        step()

            with m.State("BEGIN"):  # a word to read
                m.d.comb += begin.eq(1)
                m.next = "BUS"
            with m.State("BUS"):
                # Without waiting for the answer, which comes late in a cycle: what is there when
                # it comes stays.
                with m.If(is_read & ~got):
                    m.d.sync += word.eq(read_word)
                with m.If(failed):
                    m.d.sync += status.eq(Status.BUS)
                    m.next = "TRAILER"
                with m.Elif(got):
                    m.next = "DATA"
                with m.Elif(wrote):
                    m.d.sync += strobe.eq(0)
                    step()
                    m.next = "TAKE"
                    with m.If(final):
                        m.next = "TRAILER"

            with m.State("DATA"):  # a byte that was read
                m.d.comb += [
                    self.o.valid.eq(1),
                    self.o.payload.data.eq(word.word_select(lane, 8)),
                ]
                with m.If(self.o.ready):
                    step()
                    with m.If(final):
                        m.next = "TRAILER"
                    with m.Elif(lane.all()):
                        m.next = "BEGIN"

            with m.State("TRAILER"):
                m.d.comb += self.o.payload.last.eq(index == ANSWER_TRAILER.size - 1)
                interrupt = Mux(self.i_interrupt, INTERRUPT, 0)
                put(Cat(header.address, status | interrupt), ANSWER_TRAILER.size, "DRAIN")

            with m.State("DRAIN"):  # what the request has besides
                m.d.comb += self.i.ready.eq(~ended)
                with m.If(ended):
                    with m.If(advance & (status == Status.OK)):
                        m.d.sync += expected.eq(expected + 1)
                    m.next = "HEADER"
                with m.Elif(self.i.valid):
                    m.d.sync += ended.eq(self.i.payload.last)
        return m

    def _bus(self, m: Module, header, word, strobe, is_read, to_registers):
        """One word to or from the bus that the operation names.

        Returns (begin, got, wrote, failed, word read): `begin` for one cycle starts it, one of
        the next three comes for one cycle later, the word in the cycle before `got`.
        """
        axi, lite = self.m_axi, self.m_axil
        axi_bytes = self._identity.data_bytes
        slot_bits = exact_log2(axi_bytes)
        slot = header.address[exact_log2(WORD_BYTES) : slot_bits]  # word within the bus
        begin, address_left, data_left = Signal(), Signal(), Signal()

        address = Cat(Const(0, slot_bits), header.address[slot_bits:])
        register = Cat(Const(0, 2), header.address[2:12])
        m.d.comb += [
            axi.awaddr.eq(address),
            axi.araddr.eq(address),
            lite.awaddr.eq(register),
            lite.araddr.eq(register),
            lite.wdata.eq(word),
            lite.wstrb.eq(strobe),
            axi.wdata.eq(word.replicate(axi_bytes // WORD_BYTES)),
            axi.wstrb.eq(Cat(strobe, Const(0, axi_bytes)) << (slot << exact_log2(WORD_BYTES))),
            axi.wlast.eq(1),
        ]
        for prefix in ("aw", "ar"):
            m.d.comb += [
                getattr(axi, f"{prefix}size").eq(slot_bits),
                getattr(axi, f"{prefix}burst").eq(Burst.INCR),
            ]
        for bus, chosen in ((axi, ~to_registers), (lite, to_registers)):
            m.d.comb += [
                bus.arvalid.eq(address_left & chosen & is_read),
                bus.awvalid.eq(address_left & chosen & ~is_read),
                bus.wvalid.eq(data_left & chosen),
                bus.rready.eq(1),
                bus.bready.eq(1),
            ]
            with m.If((bus.arvalid & bus.arready) | (bus.awvalid & bus.awready)):
                m.d.sync += address_left.eq(0)
            with m.If(bus.wvalid & bus.wready):
                m.d.sync += data_left.eq(0)
        with m.If(begin):
            m.d.sync += [address_left.eq(1), data_left.eq(~is_read)]

        got, wrote, failed = Signal(), Signal(), Signal()
        buses = (axi, lite)
        errors = [(bus.rvalid & bus.rresp[1]) | (bus.bvalid & bus.bresp[1]) for bus in buses]
        m.d.sync += [
            got.eq(Cat(bus.rvalid & ~bus.rresp[1] for bus in buses).any()),
            wrote.eq(Cat(bus.bvalid & ~bus.bresp[1] for bus in buses).any()),
            failed.eq(Cat(errors).any()),
        ]
        read_word = Mux(to_registers, lite.rdata, axi.rdata.word_select(slot, 8 * WORD_BYTES))
        return begin, got, wrote, failed, read_word
