"""AXI4 and AXI4-Lite signatures, from the side that issues the transactions."""

from __future__ import annotations

import enum

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "Axi4ReadSignature",
    "Axi4Signature",
    "Axi4WriteSignature",
    "AxiLiteSignature",
    "Burst",
    "Response",
    "connect_read",
    "connect_write",
]


class Burst(enum.IntEnum):
    """ARBURST, AWBURST. Only INCR is used."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.IntEnum):
    """RRESP, BRESP: bit 1 tells an error."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _read_members(address_bits: int, data_bytes: int) -> dict[str, wiring.Member]:
    return {
        "arid": Out(1),
        "araddr": Out(address_bits),
        "arlen": Out(8),
        "arsize": Out(3),
        "arburst": Out(2),
        "arvalid": Out(1),
        "arready": In(1),
        "rid": In(1),
        "rdata": In(8 * data_bytes),
        "rresp": In(2),
        "rlast": In(1),
        "rvalid": In(1),
        "rready": Out(1),
    }


def _write_members(address_bits: int, data_bytes: int) -> dict[str, wiring.Member]:
    return {
        "awid": Out(1),
        "awaddr": Out(address_bits),
        "awlen": Out(8),
        "awsize": Out(3),
        "awburst": Out(2),
        "awvalid": Out(1),
        "awready": In(1),
        "wdata": Out(8 * data_bytes),
        "wstrb": Out(data_bytes),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
        "bid": In(1),
        "bresp": In(2),
        "bvalid": In(1),
        "bready": Out(1),
    }


class Axi4ReadSignature(wiring.Signature):
    """The read half of `Axi4Signature`: channels AR and R."""

    def __init__(self, address_bits: int, data_bytes: int):
        super().__init__(_read_members(address_bits, data_bytes))


class Axi4WriteSignature(wiring.Signature):
    """The write half of `Axi4Signature`: channels AW, W and B."""

    def __init__(self, address_bits: int, data_bytes: int):
        super().__init__(_write_members(address_bits, data_bytes))


class Axi4Signature(wiring.Signature):
    """AXI4 master. One ID per direction (always 0), so that answers come in order.

    IDs are one bit wide because tools insist on their existence. Not present, and to be tied off
    where the master is connected: lock 0, cache 0b0011, prot 0, qos 0.
    """

    def __init__(self, address_bits: int, data_bytes: int):
        super().__init__(
            _write_members(address_bits, data_bytes) | _read_members(address_bits, data_bytes)
        )


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite with 32-bit data: `In(AxiLiteSignature())` is a slave."""

    def __init__(self, address_bits: int = 12):
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


def _connect(m: Module, members: dict[str, wiring.Member], outer, inner) -> None:
    for name, member in members.items():
        if member.flow == Out:
            m.d.comb += getattr(outer, name).eq(getattr(inner, name))
        else:
            m.d.comb += getattr(inner, name).eq(getattr(outer, name))


def connect_read(m: Module, outer, inner) -> None:
    """Drive the read half of the component's own master port `outer` from a submodule's port."""
    _connect(m, _read_members(1, 1), outer, inner)


def connect_write(m: Module, outer, inner) -> None:
    """Drive the write half of the component's own master port `outer` from a submodule's port."""
    _connect(m, _write_members(1, 1), outer, inner)
