"""A language model on a device, and passes of its sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import COMMAND_BYTES, Region
from hw.registers import register_address
from sw.driver.machine import Machine
from sw.driver.session import Prediction, Session
from sw.driver.shared_memory import SharedMemory

__all__ = ["LoadedDecoder"]

_LIMIT_CYCLES, _LIMIT_FACTOR = 1_000_000, 100
_CHAIN = 0


class LoadedDecoder:
    """A decoder's program on a device. Sessions share its weights; each has a workspace.

    Their caches survive other programs on the same device: they are read back before one takes
    their place, and written again with the next pass. Programs with the same `memory` lie in the
    device's memory together.

    filled_by: names of programs there that give sessions their memories.

    Attributes
    ----------
    counters: the device's, summed up over all passes so far, with `passes`, `tokens`,
    `needed_bytes`: of weights, keys and values, once for each pass, and `expected_cycles`: of the
    cost model. commands: of all entries. sessions: those that were not closed. chain: passes of
    one token at one start, if it has any.
    """

    def __init__(
        self,
        device: Machine,
        program: Any,
        memory: SharedMemory | None = None,
        chain: Any = None,
        filled_by: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.device, self.program, self.chain = device, program, chain
        self.memory = SharedMemory(device) if memory is None else memory
        self.memory.parts.append(self)
        self.filled_by = " or ".join(map(repr, filled_by))
        sizes = [part.workspace_bytes for part in (program, *filled_by.values())]
        self.workspace_bytes: int = max(sizes)
        self.counters: Counter[str] = Counter()
        self.sessions: list[Session] = []
        self._begins: dict[int, int] = {}  # of each entry's commands, in bytes; 0: of the chain's
        parts, begin = {n: entry.commands for n, entry in program.entries.items()}, 0
        if chain is not None:
            parts[_CHAIN] = chain.commands
        for tokens, commands in parts.items():
            self._begins[tokens] = begin
            begin += len(commands)
        self.commands: NDArray[np.uint8] = np.concatenate(list(parts.values()))

    @property
    def users(self) -> Sequence[Session]:
        """What works in the device's memory."""
        return self.sessions

    @property
    def io_bytes(self) -> int:
        """Of any of its passes."""
        return self.program.io_bytes if self.chain is None else self.chain.io_bytes

    def session(
        self, memories: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None
    ) -> Session:
        """A new sequence, which holds the program's prefix.

        memories: real keys and values of those caches that hold something else than the text, see
        `DecoderProgram.memory_image`; none where another program is to fill them.
        """
        program = self.program
        awaits = bool(self.filled_by) and memories is None
        image = [*program.prefix_image, *(() if awaits else program.memory_image(memories or {}))]
        session = Session(self, len(program.prefix), image)
        session.remembers = not awaits
        return self.add(session)

    def add(self, session: Session) -> Session:
        """Take a session among those that are open."""
        self.sessions.append(session)
        return session

    def read_back(self, session: Session) -> NDArray[np.uint8]:
        """What a session has to keep of its workspace, its caches, from the device."""
        size = self.program.cache_bytes
        return self.device.read(Region.WORKSPACE, self.memory.offset(session), size)

    def forget(self, session: Session) -> None:
        """A session ends."""
        self.sessions.remove(session)

    # --- passes ---------------------------------------------------------------------------------

    def run(
        self,
        session: Session,
        ids: NDArray[np.int64],
        progress: Callable[[int], None] | None = None,
        *,
        reading: bool = False,
        rows: int | None = None,
    ) -> Prediction | None:
        """One pass of as many tokens as an entry has, which `program.check` has found good: what
        follows them, or None if `reading`, without the head. rows: of an entry with more of them,
        which the last token fills; there must be room.

        Whatever goes wrong, the session stays at its position, with its cache. A pass of the token
        that the pass before found the likeliest needs nothing but to be started.
        """
        program, device, position = self.program, self.device, session.position
        entry, count, memory = program.entries[rows or len(ids)], len(ids), self.memory
        ids = np.pad(ids, (0, entry.tokens - count), mode="edge")
        memory.place(session)
        begin = self._begins[entry.tokens]
        if reading or memory.ready != (session, begin, position, ids[0]):
            memory.show(self, session, begin, len(entry.commands))
            slot = session.key_slots.of(position)
            for number, value in program.registers(position, ids, reading, slot).items():
                device.set_register(number, value)
            if not entry.by_token:
                device.write(Region.IO, entry.input, program.encode(position, ids))
        self._execute(entry.commands, entry.estimated_cycles(position, reading), progress)
        self._count(entry.tokens, position, count, reading)
        if position + count > program.state.counted_from:
            sums = device.read(Region.IO, entry.attention, program.attention_bytes(entry))
            session.key_slots.take(position, program.attention(entry, sums)[:count])
        if reading:
            return None
        prediction = self._prediction(entry, entry.output, count)
        if entry.by_token and entry.tokens == 1:
            self._be_ready(session, begin, position + 1, prediction.best)
        return prediction

    def run_chain(self, session: Session, token: int) -> Prediction:
        """Passes of one token at one start, the first of `token`, the others of the likeliest one
        of the pass before: what follows each. There must be room for all.

        The machine leaves out those behind an end token. Else as `run`.
        """
        program, device, chain = self.program, self.device, self.chain
        position, memory, begin = session.position, self.memory, self._begins[_CHAIN]
        memory.place(session)
        if memory.ready != (session, begin, position, token):
            memory.show(self, session, begin, len(chain.commands))
            slot = session.key_slots.of(position)
            registers = program.registers(position, np.array([token]), False, slot)
            for number, value in {**registers, **chain.registers}.items():
                device.set_register(number, value)
        entry = program.entries[1]
        self._execute(chain.commands, chain.passes * entry.estimated_cycles(position))
        done = device.read_register(register_address(chain.position)) - position
        for number in range(done):
            self._count(1, position + number, 1, reading=False)
        rows = [self._prediction(entry, output, 1) for output in chain.outputs[:done]]
        prediction = Prediction(
            np.concatenate([row.tokens for row in rows]),
            np.concatenate([row.log_probabilities for row in rows]),
        )
        self._be_ready(session, begin, position + done, prediction.best)
        return prediction

    def _execute(
        self,
        commands: NDArray[np.uint8],
        cycles: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Run commands that are expected to take so many cycles."""
        self.memory.ready = None
        limit = _LIMIT_CYCLES + _LIMIT_FACTOR * cycles
        try:
            self.device.run(len(commands) // COMMAND_BYTES, max_cycles=limit, progress=progress)
        except KeyboardInterrupt:
            self.device.reset()
            raise
        if self.device.has_cycles:
            self.counters.update(self.device.raw_counters())

    def _count(self, rows: int, position: int, tokens: int, reading: bool) -> None:
        """Count a pass of `rows` rows, `tokens` of them tokens."""
        needed = self.program.needed_bytes(rows, position, reading)
        self.counters.update({"passes": 1, "tokens": tokens, "needed_bytes": needed})
        expected = self.program.entries[rows].estimated_cycles(position, reading)
        self.counters["expected_cycles"] += expected

    def _prediction(self, entry: Any, output: int, rows: int) -> Prediction:
        """What the head of an entry selected, its first rows, from IO."""
        program = self.program
        size = 2 * entry.selected * program.output_bytes
        selection = program.decode(entry, self.device.read(Region.IO, output, size))
        valid = (selection.indices >= 0) & (selection.indices < len(program.order))
        found = np.where(valid, program.order[np.where(valid, selection.indices, 0)], -1)
        return Prediction(found[:rows], selection.log_probabilities()[:rows])

    def _be_ready(self, session: Session, begin: int, position: int, token: int) -> None:
        """The registers stand for another pass of one token; but not behind the last slot, where
        keys take the place of others."""
        if position < self.program.state.slots:
            self.memory.ready = session, begin, position, token
