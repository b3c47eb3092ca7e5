"""The host link's frames: the one definition that hardware, driver and docs/link.md share.

A frame is HDLC-like (RFC 1662): FLAG, the payload and its CRC-32 with FLAG and ESCAPE replaced by
ESCAPE and the byte XOR `TOGGLE`, FLAG. Numbers are little-endian.

    request: operation (1 byte), sequence (1), session (2), address (4), count (2), data of a WRITE
    answer:  operation | ANSWER (1), sequence (1), session (2), data of a READ or HELLO,
             address (4), status (1)

The answer's address is that of the first byte that was not processed.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = [
    "ANSWER",
    "ANSWER_HEADER",
    "ANSWER_TRAILER",
    "CRC_BYTES",
    "CRC_INITIAL",
    "CRC_POLYNOMIAL",
    "CRC_RESIDUE",
    "ESCAPE",
    "FLAG",
    "INTERRUPT",
    "MAGIC",
    "MAX_DATA",
    "REGISTERS",
    "REQUEST_HEADER",
    "TOGGLE",
    "VERSION",
    "WINDOW",
    "Deframer",
    "Identity",
    "Operation",
    "Status",
    "frame",
]

VERSION: Final = 1
"""Of this protocol. HELLO and its answer are the same in every version."""

MAGIC: Final = int.from_bytes(b"WEFT", "little")
FLAG: Final = 0x7E
ESCAPE: Final = 0x7D
TOGGLE: Final = 0x20
ANSWER: Final = 0x80
"""Set in the operation of an answer, so that a line that echoes is not mistaken for a board."""

REGISTERS: Final = 4
"""Bit of an operation: addresses are those of registers, not of memory."""

INTERRUPT: Final = 0x80
"""Set in every status while the accelerator's interrupt is."""

WINDOW: Final = 64
"""Requests in flight. Sequence numbers up to 128 behind are repetitions, so half of that."""

MAX_DATA: Final = 1024
"""Bytes that one READ or WRITE may carry."""

REQUEST_HEADER: Final = struct.Struct("<BBHIH")
ANSWER_HEADER: Final = struct.Struct("<BBH")
ANSWER_TRAILER: Final = struct.Struct("<IB")

CRC_POLYNOMIAL: Final = 0xEDB88320  # bit-reversed 0x04C11DB7, as in zlib
CRC_INITIAL: Final = 0xFFFFFFFF
CRC_RESIDUE: Final = 0xDEBB20E3  # register after a payload and its CRC, before the inversion
CRC_BYTES: Final = 4


class Operation(enum.IntEnum):
    """What a request asks for."""

    HELLO = 0  # begins a session: sequence numbers restart at 0; the answer's data is `Identity`
    READ = 1  # `count` bytes from `address`
    WRITE = 2  # `count` bytes to `address`
    FILL = 3  # `count` zeros to `address`
    READ_REGISTERS = READ | REGISTERS
    WRITE_REGISTERS = WRITE | REGISTERS


class Status(enum.IntEnum):
    """Low bits of the last byte of an answer."""

    OK = 0
    BUS = 1  # AXI error response at `address`; not counted as executed
    SEQUENCE = 2  # a request before this one is missing: not executed
    SESSION = 3  # the board is in another session, or in none: not executed
    MALFORMED = 4  # unknown operation, or less data than `count`; not counted as executed


class Identity(NamedTuple):
    """Data of the answer to HELLO."""

    magic: int
    version: int
    data_bytes: int  # width of the memory bus
    memory_bytes: int
    buffer_bytes: int  # requests that wait, with 2 bytes each for their length
    clocks_per_bit: int

    @classmethod
    def unpack(cls, data: bytes) -> Identity:
        """Raises `struct.error` unless `data` has the right length."""
        return cls(*_IDENTITY.unpack(data))

    def pack(self) -> bytes:
        return _IDENTITY.pack(*self)


_IDENTITY = struct.Struct("<IHHIHH")


def frame(payload: bytes) -> bytes:
    """A payload as it goes over the line."""
    body = payload + zlib.crc32(payload).to_bytes(CRC_BYTES, "little")
    escaped = body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
    return bytes([FLAG]) + escaped + bytes([FLAG])


class Deframer:
    """Payloads out of a stream of bytes; whatever is not one is dropped."""

    def __init__(self, limit: int = 4 * MAX_DATA):
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Payloads that `data` completes."""
        *bodies, rest = data.split(b"\x7e")
        for body in bodies:
            self._pending += body
            payload = _payload(bytes(self._pending))
            self._pending.clear()
            if payload:
                yield payload
        # Only garbage is so long: it will be dropped for its CRC.
        self._pending += rest[: max(self._limit - len(self._pending), 0)]


def _payload(body: bytes) -> bytes:
    """The payload between two flags, nothing if it was damaged."""
    first, *escaped = body.split(b"\x7d")
    # An escape in front of an escape or of the flag is none: the sender gave up this frame.
    if not all(escaped):
        return b""
    whole = first + b"".join(bytes([part[0] ^ TOGGLE]) + part[1:] for part in escaped)
    payload, crc = whole[:-CRC_BYTES], whole[-CRC_BYTES:]
    return payload if zlib.crc32(payload) == int.from_bytes(crc, "little") else b""
