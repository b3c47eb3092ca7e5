"""Reader: one AXI4 read master for three clients, answers in order."""

from __future__ import annotations

import enum

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.buffer import StreamBuffer
from hw.config import AcceleratorConfig
from hw.dma.axi import Axi4ReadSignature, Burst
from hw.dma.offers import OfferQueue

__all__ = ["Client", "Reader", "data_layout", "request_layout"]


class Client(enum.IntEnum):
    """Index of a client in `Reader.request` and `Reader.data`."""

    FETCH = 0
    LOAD_WEIGHTS = 1
    LOAD_ACTIVATIONS = 2


def request_layout(config: AcceleratorConfig) -> data.StructLayout:
    """Payload of a request, which is one burst.

    address: absolute byte address, a multiple of the bus width.
    beats: 1 to `burst_bytes` / `bus_bytes`. The burst must not cross a block of `burst_bytes`,
    and it must lie in the client's window: the client has checked both.
    """
    return data.StructLayout(
        {
            "address": unsigned(config.address_bits),
            "beats": range(config.burst_bytes // config.bus_bytes + 1),
        }
    )


def data_layout(config: AcceleratorConfig) -> data.StructLayout:
    """Payload of an answer, which is one beat.

    last: last beat of its burst. error: the bus answered this beat with an error; `data` means
    nothing then, and the client stops the machine with `AXI_READ`.
    """
    return data.StructLayout({"data": unsigned(8 * config.bus_bytes), "last": 1, "error": 1})


class Reader(wiring.Component):
    """Issues the clients' bursts and routes the beats back.

    `FETCH` goes before the loads, which take turns burst by burst. Beats come back in the order
    of the requests, over all clients: a client that does not take its beat holds up the others.
    So whoever may be held up by another client (`FETCH`, whose commands wait for loads) must
    request only what it has room for.

    Latency: 2 cycles from `request` to `arvalid`, 2 cycles from `rvalid` to `data`. Throughput: one
    burst and one beat a cycle; at most `max_outstanding` bursts are on the bus. Flow control:
    streams; a few beats are buffered, which takes the clients' stalls off the bus. Requests and
    beats pass registers on the clients' side, which are far from one another.

    While `i_halt`, no request goes on to the bus, an offered `arvalid` stays until it is taken, and
    every beat that arrives is discarded. A client must then be reset before it can go on.

    Members
    -------
    request: `request_layout`, by `Client`. data: `data_layout`, by `Client`.
    axi: read half of the AXI4 master. i_halt: see above.
    quiet: no read is offered or outstanding on the bus.
    """

    buffered_beats = 4

    def __init__(self, config: AcceleratorConfig):
        self._address_bits = config.address_bits
        self._bus_bytes = config.bus_bytes
        self._outstanding = config.max_outstanding
        self._request = request_layout(config)
        self._data = data_layout(config)
        super().__init__(
            {
                "request": In(stream.Signature(self._request)).array(len(Client)),
                "data": Out(stream.Signature(self._data)).array(len(Client)),
                "axi": Out(Axi4ReadSignature(config.address_bits, config.bus_bytes)),
                "i_halt": In(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Between the clients and what is below, registers each way.
        requests = [StreamBuffer(self._request) for _ in Client]
        answers = [StreamBuffer(self._data) for _ in Client]
        for client in Client:
            name = client.name.lower()
            m.submodules[f"{name}_request"] = requests[client]
            m.submodules[f"{name}_data"] = answers[client]
            wiring.connect(m, wiring.flipped(self.request[client]), requests[client].i)
            wiring.connect(m, answers[client].o, wiring.flipped(self.data[client]))
        client_bits = unsigned((len(Client) - 1).bit_length())
        axi = self.axi

        # --- requests: which client owns each outstanding burst is remembered in `owners` ---------
        m.submodules.owners = owners = fifo.SyncFIFO(
            width=client_bits.width, depth=self._outstanding
        )
        activations_next = Signal()  # the load that has waited longer
        choice = Signal(client_bits)
        wants = Cat(requests[client].o.valid for client in Client)
        with m.If(wants[Client.FETCH]):
            m.d.comb += choice.eq(Client.FETCH)
        with m.Elif(
            wants[Client.LOAD_ACTIVATIONS] & (activations_next | ~wants[Client.LOAD_WEIGHTS])
        ):
            m.d.comb += choice.eq(Client.LOAD_ACTIVATIONS)
        with m.Else():
            m.d.comb += choice.eq(Client.LOAD_WEIGHTS)

        room, accept = Signal(), Signal()
        chosen = Signal(self._request)
        m.d.comb += [
            room.eq((~axi.arvalid | axi.arready) & owners.w_rdy & ~self.i_halt),
            accept.eq(room & wants.any()),
            owners.w_en.eq(accept),
            owners.w_data.eq(choice),
        ]
        for client in Client:
            with m.If(choice == client):
                m.d.comb += requests[client].o.ready.eq(room)
                m.d.comb += chosen.eq(requests[client].o.payload)

        with m.If(accept):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(chosen.address),
                axi.arlen.eq(chosen.beats - 1),
            ]
            with m.If(choice != Client.FETCH):
                m.d.sync += activations_next.eq(choice == Client.LOAD_WEIGHTS)
        with m.Elif(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        m.d.comb += [
            axi.arid.eq(0),
            axi.arsize.eq(exact_log2(self._bus_bytes)),
            axi.arburst.eq(Burst.INCR),
            self.quiet.eq(~axi.arvalid & ~owners.r_rdy),
        ]

        # --- data -----------------------------------------------------------------------------
        m.submodules.beats = beats = OfferQueue(self._data, len(Client), depth=self.buffered_beats)
        m.d.comb += [
            beats.i.data.eq(axi.rdata),
            beats.i.last.eq(axi.rlast),
            beats.i.error.eq(axi.rresp[1]),
            beats.i_target.eq(Cat(owners.r_data == client for client in Client)),
            beats.write.eq(axi.rvalid & beats.room & ~self.i_halt),
            beats.withdraw.eq(self.i_halt),
            axi.rready.eq(beats.room | self.i_halt),
            owners.r_en.eq(axi.rvalid & axi.rready & axi.rlast),
        ]
        taken = Signal(len(Client))
        for client in Client:
            port = answers[client].i
            m.d.comb += [
                port.payload.eq(beats.o),
                port.valid.eq(beats.offered[client] & ~self.i_halt),
                taken[client].eq(beats.offered[client] & port.ready),
            ]
        m.d.comb += beats.accepted.eq(taken.any() & ~self.i_halt)
        return m
