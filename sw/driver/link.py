"""Host side of the host link: memory and registers of a board over a line that may lose, change
and repeat bytes. docs/link.md has the protocol, `boards.link.protocol` its one definition.

Requests are numbered and sent ahead of their answers; where one is missing, it and all behind it
are sent again. A batch has requests of one kind, so that a read which is repeated cannot see a
write that came after it.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from boards.link.protocol import (
    ANSWER,
    ANSWER_HEADER,
    ANSWER_TRAILER,
    INTERRUPT,
    MAGIC,
    MAX_DATA,
    REGISTERS,
    REQUEST_HEADER,
    VERSION,
    WINDOW,
    Deframer,
    Identity,
    Operation,
    Status,
    frame,
)
from sw.driver.batch import Answer, Batch, Progress, Request
from sw.driver.errors import BusError, LinkError

__all__ = ["ByteLine", "Link", "Progress"]

FILL_BYTES = 4096
"""Zeros that one FILL writes: they take the board as long as some hundred bytes of a line."""

HELLO_ATTEMPTS = 6
HELLO_SECONDS = 0.5
LONGEST_TIMEOUT = 4.0
LONGEST_FRAMES, LONGEST_FRAMES_SECONDS = 4, 10.0
"""A timeout is at least as long as so many frames take, by the speed of HELLO, but at most this:
simulated lines may be thousands of times slower than real ones."""


WIRES = "cable and ground"
NOISE_TO_BOARD = f"the line to it is noisy: check {WIRES}"


class ByteLine(Protocol):
    """A serial line, or anything that carries bytes as unreliably."""

    name: str

    def write(self, data: bytes) -> None:
        """Send bytes. May block for as long as they take."""

    def read(self, timeout: float) -> bytes:
        """Bytes that have arrived, at least one unless `timeout` seconds have passed."""
        ...

    def close(self) -> None: ...


class Link:
    """A session with the board at the other end of `line`.

    Every method raises `LinkError`, where the board stops answering or answers what cannot be,
    and `BusError` where a memory or register access failed. The link can be used afterwards: the
    next call begins a new session.

    Parameters
    ----------
    line: of bytes.
    timeout: seconds without an answer until requests are repeated, more on a line that is so slow
        that it needs them; doubles with each repetition.
    attempts: repetitions without any answer until the board is given up.
    clock: time in seconds. rng: for session numbers.

    Attributes
    ----------
    identity: what the board said of itself. interrupt: the accelerator's, in the latest answer.
    repeats: how often requests were sent again.
    """

    def __init__(
        self,
        line: ByteLine,
        *,
        timeout: float = 1.0,
        attempts: int = 6,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ):
        self.line = line
        self.timeout = timeout
        self.attempts = attempts
        self.interrupt = False
        self.repeats = 0
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._deframer = Deframer()
        self._session = 0
        self._next = 0  # sequence number of the next request
        self._open = False  # the session is in a known state
        self._byte_seconds = 0.0
        self.identity = self.connect()

    # --- what the board can do ------------------------------------------------------------------

    @property
    def chunk(self) -> int:
        """Bytes of memory in one request: two of them fit the board's buffer."""
        return min(MAX_DATA, self.identity.buffer_bytes // 2 - 32)

    @property
    def window(self) -> int:
        """Requests in flight: as many as wait in the board's buffer while one is executed."""
        return min(WINDOW, self.identity.buffer_bytes // (REQUEST_HEADER.size + 6))

    def read(self, address: int, size: int, progress: Progress | None = None) -> bytes:
        """`size` bytes of memory."""
        parts = self._pieces(Operation.READ, address, size, self.chunk)
        return b"".join(self._transact(parts, progress))

    def write(self, address: int, data: bytes, progress: Progress | None = None) -> None:
        """Bytes into memory."""
        parts = self._pieces(Operation.WRITE, address, len(data), self.chunk)
        requests = []
        for part in parts:
            begin = part.address - address
            requests.append(part._replace(data=data[begin : begin + part.size]))
        self._transact(requests, progress)

    def fill(self, address: int, size: int, progress: Progress | None = None) -> None:
        """Zeros into memory."""
        self._transact(self._pieces(Operation.FILL, address, size, FILL_BYTES), progress)

    def read_registers(self, address: int, count: int = 1) -> list[int]:
        """`count` 32-bit registers from byte address `address` on."""
        (data,) = self._transact([Request(Operation.READ_REGISTERS, address, 4 * count)])
        return list(struct.unpack(f"<{count}I", data))

    def write_registers(self, address: int, values: Sequence[int]) -> None:
        """32-bit registers from byte address `address` on, each written exactly once."""
        data = struct.pack(f"<{len(values)}I", *values)
        self._transact([Request(Operation.WRITE_REGISTERS, address, len(data), data)])

    def close(self) -> None:
        self.line.close()

    # --- sessions -------------------------------------------------------------------------------

    def connect(self) -> Identity:
        """Begin a session; whatever an earlier one left behind is ignored by both sides."""
        self._open = False
        self._session = self._rng.choice(
            [number for number in range(1, 1 << 16) if number != self._session]
        )
        self._next = 0
        hello = frame(REQUEST_HEADER.pack(Operation.HELLO, 0, self._session, 0, 0))
        echoed, received, intact = False, 0, 0
        for _ in range(HELLO_ATTEMPTS):
            self.line.write(hello)
            begin = self._clock()
            deadline = begin + HELLO_SECONDS
            while (left := deadline - self._clock()) > 0:
                data = self.line.read(left)
                received += len(data)
                for payload in self._deframer.feed(data):
                    intact += 1
                    echoed |= payload[: ANSWER_HEADER.size] == hello[1 : 1 + ANSWER_HEADER.size]
                    answer = self._answer(payload)
                    if answer is not None and answer.operation == Operation.HELLO:
                        identity = self._identity(answer.data)
                        seconds = self._clock() - begin
                        self._byte_seconds = seconds / (len(hello) + len(payload))
                        self._open = True
                        return identity
        if echoed:
            problem = "the line echoes what is sent: there is no board, or RX and TX are connected"
        elif intact:
            problem = (
                f"something answers ({intact} intact frames), but not this host: another program "
                f"uses the board, or {NOISE_TO_BOARD}"
            )
        elif received:
            problem = (
                f"something answers ({received} bytes), but no frame is intact: the line is noisy, "
                f"or it is no Weft board. Check the baud rate of the bitstream, {WIRES}, and that "
                f"this is the board's port"
            )
        else:
            problem = (
                "nothing answers: is this the board's port, is the board on, and is the bitstream "
                "loaded and built for this baud rate?"
            )
        raise LinkError(f"{self.line.name}: {problem}")

    def _identity(self, data: bytes) -> Identity:
        try:
            identity = Identity.unpack(data)
        except struct.error:
            identity = None
        if identity is None or identity.magic != MAGIC:
            raise LinkError(f"{self.line.name}: what answers is not a Weft board: {data.hex()}")
        if identity.version != VERSION:
            raise LinkError(
                f"{self.line.name}: the board has version {identity.version} of the link, this "
                f"software {VERSION}: build and load the bitstream again"
            )
        return identity

    # --- requests -------------------------------------------------------------------------------

    @staticmethod
    def _pieces(operation: Operation, address: int, size: int, largest: int) -> list[Request]:
        # All but the first begin at a multiple of a word, so that no word is written twice.
        first = min(size, largest - address % 4)
        parts = [Request(operation, address, first)] if size else []
        for offset in range(first, size, largest):
            parts.append(Request(operation, address + offset, min(largest, size - offset)))
        return parts

    def _transact(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[bytes]:
        """Execute requests of one kind in order, each once: the data of their answers."""
        if not self._open:
            self.identity = self.connect()
        self._open = False  # unless it ends as it should
        batch = Batch(requests, self._next, self.window, progress)
        failures = received = intact = 0  # since the last answer
        frames = LONGEST_FRAMES * (self.chunk + 40) * self._byte_seconds
        timeout = max(self.timeout, min(frames, LONGEST_FRAMES_SECONDS))
        deadline = self._clock() + timeout
        while not batch.finished:
            if messages := batch.to_send():
                self.line.write(b"".join(self._message(batch, index) for index in messages))
            now = self._clock()
            data = self.line.read(deadline - now) if now < deadline else b""
            advanced = False
            received += len(data)
            for payload in self._deframer.feed(data):
                intact += 1
                answer = self._answer(payload)
                if answer is not None:
                    self._check(answer, batch)
                    advanced |= batch.take(answer)
            now = self._clock()
            if advanced:
                failures = received = intact = 0
                deadline = now + timeout
            elif now >= deadline:
                failures += 1
                if failures > self.attempts:
                    raise LinkError(f"{self.line.name}: {_lost(failures, received, intact)}")
                batch.rewind()
                deadline = now + max(timeout, min(timeout * 2**failures, LONGEST_TIMEOUT))
        self.repeats += batch.repeats
        self._next = (self._next + len(requests)) & 0xFF
        self._open = True
        return batch.answers

    def _message(self, batch: Batch, index: int) -> bytes:
        request = batch.requests[index]
        header = REQUEST_HEADER.pack(
            request.operation,
            batch.first + index & 0xFF,
            self._session,
            request.address,
            request.size,
        )
        return frame(header + request.data)

    def _answer(self, payload: bytes) -> Answer | None:
        """An answer of this session, or None."""
        body = len(payload) - ANSWER_HEADER.size - ANSWER_TRAILER.size
        if body < 0 or not payload[0] & ANSWER:
            return None
        operation, sequence, session = ANSWER_HEADER.unpack_from(payload)
        if session != self._session:
            return None
        address, status = ANSWER_TRAILER.unpack(payload[-ANSWER_TRAILER.size :])
        self.interrupt = bool(status & INTERRUPT)
        data = payload[ANSWER_HEADER.size : ANSWER_HEADER.size + body]
        return Answer(operation & ~ANSWER, sequence, data, address, status & ~INTERRUPT)

    def _check(self, answer: Answer, batch: Batch) -> None:
        """Raises if no repetition can help."""
        if answer.status == Status.SESSION:
            raise LinkError(
                f"{self.line.name}: the board knows nothing of this session any more: it was "
                f"restarted, or another program uses it; what its memory held may be lost"
            )
        if answer.status == Status.BUS and batch.is_next(answer):
            what = "register" if answer.operation & REGISTERS else "memory"
            kind = "read" if answer.operation & 3 == Operation.READ else "write"
            raise BusError(what, kind, answer.address & ~3)
        if answer.status not in tuple(Status):
            raise LinkError(f"{self.line.name}: the board answers with status {answer.status}")
        if answer.status == Status.MALFORMED:
            raise LinkError(
                f"{self.line.name}: the board does not understand operation {answer.operation}: "
                f"software and bitstream do not fit together"
            )


def _lost(attempts: int, received: int, intact: int) -> str:
    """Why no answer came: by the bytes and the intact frames that did."""
    if intact:
        return (
            f"the board answers ({intact} intact frames in {attempts} attempts), but requests do "
            f"not reach it: {NOISE_TO_BOARD}"
        )
    if received:
        return (
            f"the line is noisy: {received} bytes came in {attempts} attempts, and no frame was "
            f"intact: check {WIRES}, or build the bitstream for a lower baud rate"
        )
    return (
        f"the board stopped answering ({attempts} attempts, nothing came): is it still on, and "
        f"connected in both directions?"
    )
