"""Requests of one kind on their way to a board: a window of them in flight, go-back-N on a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from boards.link.protocol import Operation, Status
from sw.driver.errors import LinkError

__all__ = ["Answer", "Batch", "Progress", "Request"]

Progress = Callable[[int, int], None]
"""Called with bytes done, bytes in all."""

IN_FLIGHT_BYTES = 16384
"""Of requests and their answers. More than a line carries in the time that USB takes for an
answer, and less than operating systems buffer."""


class Request(NamedTuple):
    operation: Operation
    address: int
    size: int
    data: bytes = b""

    @property
    def cost(self) -> int:
        """Bytes of it and its answer on the line, about."""
        return 40 + self.size * (self.operation & 3 != Operation.FILL)


class Answer(NamedTuple):
    """What the board said to one request."""

    operation: int
    sequence: int
    data: bytes
    address: int
    status: int


class Batch:
    """Requests of one kind, and how far they are: sent up to `_sent`, answered up to `answers`."""

    def __init__(
        self, requests: Sequence[Request], first: int, window: int, progress: Progress | None
    ):
        self.requests = requests
        self.first = first
        self._window = window
        self.answers: list[bytes] = []
        self.repeats = 0
        self._progress = progress
        self._total = sum(request.size for request in requests)
        self._done = 0
        self._sent = 0
        self._reached = 0  # the most that was ever sent
        self._rewound = False

    @property
    def finished(self) -> bool:
        return len(self.answers) == len(self.requests)

    def to_send(self) -> list[int]:
        """Indices of the requests to send now."""
        begin = self._sent
        flying = sum(request.cost for request in self.requests[len(self.answers) : begin])
        while self._sent < len(self.requests) and self._sent - len(self.answers) < self._window:
            flying += self.requests[self._sent].cost
            if flying > IN_FLIGHT_BYTES and self._sent > len(self.answers):
                break
            self._sent += 1
        self.repeats += max(min(self._sent, self._reached) - begin, 0)
        self._reached = max(self._sent, self._reached)
        return list(range(begin, self._sent))

    def rewind(self) -> None:
        """Send everything that is not answered again."""
        self._sent = len(self.answers)
        self._rewound = False

    def _offset(self, answer: Answer) -> int | None:
        """Position of the answer behind the oldest request without one; None if it has none."""
        offset = (answer.sequence - self.first - len(self.answers)) & 0xFF
        return offset if len(self.answers) + offset < self._reached else None

    def is_next(self, answer: Answer) -> bool:
        """Whether it answers the oldest request, or a write, before which all is done."""
        offset = self._offset(answer)
        return offset == 0 or (offset is not None and answer.operation & 3 != Operation.READ)

    def take(self, answer: Answer) -> bool:
        """Take note of an answer; whether there are fewer to come now."""
        offset = self._offset(answer)
        if offset is None or answer.operation != self.requests[0].operation:
            return False
        if answer.status == Status.OK and self.is_next(answer):
            request = self.requests[len(self.answers)]
            is_read = answer.operation & 3 == Operation.READ
            if is_read and len(answer.data) != request.size:
                raise LinkError(
                    f"{len(answer.data)} bytes came for a read of {request.size}: the board "
                    f"does not follow the protocol"
                )
            for _ in range(offset + 1):
                self._done += self.requests[len(self.answers)].size
                self.answers.append(answer.data if is_read else b"")
            self._sent = max(self._sent, len(self.answers))
            self._rewound = False
            if self._progress is not None:
                self._progress(self._done, self._total)
            return True
        # Something before it is missing: once is enough, more such answers are on the way.
        if not self._rewound:
            self._sent = len(self.answers)
            self._rewound = True
        return False
