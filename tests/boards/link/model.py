"""The board's side of the host link in Python, and lines that damage what they carry."""

from __future__ import annotations

import random
from collections.abc import Callable

from boards.link.protocol import (
    ANSWER,
    ANSWER_HEADER,
    ANSWER_TRAILER,
    INTERRUPT,
    MAGIC,
    REGISTERS,
    REQUEST_HEADER,
    VERSION,
    Deframer,
    Identity,
    Operation,
    Status,
    frame,
)

__all__ = ["Faults", "ModelBoard", "ModelLine"]


class ModelBoard:
    """What `boards.link.bridge.Bridge` does, request by request.

    memory: its memory, beyond which accesses fail. registers: by byte address.
    register_writes: every one, in order.
    """

    def __init__(self, memory_bytes: int = 1 << 16, buffer_bytes: int = 2048):
        self.identity = Identity(MAGIC, VERSION, 4, memory_bytes, buffer_bytes, 4)
        self.memory = bytearray(memory_bytes)
        self.registers: dict[int, int] = {}
        self.register_writes: list[tuple[int, int]] = []
        self.interrupt = False
        self.session: int | None = None
        self.expected = 0
        self._deframer = Deframer(buffer_bytes)

    def power_cycle(self) -> None:
        self.memory[:] = random.Random(0).randbytes(len(self.memory))
        self.session, self.expected = None, 0
        self._deframer = Deframer()

    def feed(self, data: bytes) -> bytes:
        """Bytes of the host to bytes for the host."""
        return b"".join(frame(self.answer(p)) for p in self._deframer.feed(data) if len(p) >= 10)

    def answer(self, payload: bytes) -> bytes:
        operation, sequence, session, address, count = REQUEST_HEADER.unpack_from(payload)
        data, status, result = payload[REQUEST_HEADER.size :], Status.OK, b""
        ahead = (sequence - self.expected) & 0xFF
        if operation == Operation.HELLO:
            self.session, self.expected = session, 0
            result = self.identity.pack()
        elif session != self.session:
            status = Status.SESSION
        elif 0 < ahead < 128:
            status = Status.SEQUENCE
        elif operation not in tuple(Operation):
            status = Status.MALFORMED
        elif ahead == 0 or operation & 3 == Operation.READ:
            result, done, status = self._execute(operation, address, count, data)
            address += done
            if ahead == 0 and status == Status.OK:
                self.expected = (self.expected + 1) & 0xFF
        trailer = ANSWER_TRAILER.pack(address & 0xFFFFFFFF, status | INTERRUPT * self.interrupt)
        return ANSWER_HEADER.pack(operation | ANSWER, sequence, session) + result + trailer

    def _execute(self, operation: int, address: int, count: int, data: bytes):
        """Data of the answer, bytes done, status."""
        if operation & REGISTERS:
            values = [self.registers.get(a, 0) for a in range(address, address + count, 4)]
            if operation & 3 == Operation.READ:
                raw = b"".join(value.to_bytes(4, "little") for value in values)
                return raw, count, Status.OK
            for offset in range(0, count, 4):
                value = int.from_bytes(data[offset : offset + 4], "little")
                self.registers[address + offset] = value
                self.register_writes.append((address + offset, value))
            return b"", count, Status.OK
        done = min(count, max(len(self.memory) - address, 0))
        status = Status.OK if done == count else Status.BUS
        if operation == Operation.READ:
            return bytes(self.memory[address : address + done]), done, status
        if operation == Operation.FILL:
            data = bytes(count)
        kept = done
        if len(data) < done:
            done, status = len(data), Status.MALFORMED
            kept = max(done - (address + done) % 4, 0)  # the word that is not whole is forgotten
        self.memory[address : address + kept] = data[:kept]
        return b"", done, status


class Faults:
    """Damages bytes on their way: each with probability `rate`, in one of five ways."""

    def __init__(self, rng: random.Random, rate: float):
        self._rng, self.rate = rng, rate
        self.count = 0

    def damage(self, data: bytes) -> bytes:
        rng, result = self._rng, bytearray()
        for byte in data:
            if rng.random() >= self.rate:
                result.append(byte)
                continue
            self.count += 1
            kind = rng.randrange(5)
            if kind == 0:
                result.append(byte ^ 1 << rng.randrange(8))
            elif kind == 1:
                result += bytes([byte, byte])
            elif kind == 2:
                result += bytes([byte, rng.choice([rng.randrange(256), 0x7E, 0x7D, 0])])
            elif kind == 3:
                result += rng.randbytes(rng.randrange(40))  # a burst of noise
            # else: dropped
        return bytes(result)


class ModelLine:
    """A line to a `ModelBoard`, in simulated time.

    Bytes of the host arrive at once; answers are handed out in portions of random size, below
    `portion` bytes, each after 0.1 ms of `now`. up: nothing passes while it is False.
    """

    name = "model"

    def __init__(
        self,
        board: ModelBoard,
        rng: random.Random | None = None,
        to_board: Callable[[bytes], bytes] = bytes,
        to_host: Callable[[bytes], bytes] = bytes,
        portion: int = 2000,
    ):
        self.board = board
        self.now = 0.0
        self.up = True
        self.sent = 0
        self.closed = False
        self._portion = portion
        self._rng = rng or random.Random(0)
        self._to_board, self._to_host = to_board, to_host
        self._pending = bytearray()

    def clock(self) -> float:
        return self.now

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        if self.up:
            self._pending += self._to_host(self.board.feed(self._to_board(data)))

    def read(self, timeout: float) -> bytes:
        if not self._pending or not self.up:
            self.now += timeout
            self._pending.clear()
            return b""
        self.now += 1e-4
        count = self._rng.randrange(1, self._portion)
        data = bytes(self._pending[:count])
        del self._pending[:count]
        return data

    def close(self) -> None:
        self.closed = True
