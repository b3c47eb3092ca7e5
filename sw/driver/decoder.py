"""Sessions of a language model on a device: sequences that grow, each with its own cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import COMMAND_BYTES, SELECTED, Region
from hw.registers import register_address
from sw.driver.errors import DeviceError
from sw.driver.machine import Machine
from sw.driver.passes import Pass, Predicting, cheapest
from sw.driver.shared_memory import Parts, SharedMemory

__all__ = ["LoadedDecoder", "Prediction", "Session", "SessionError"]

_LIMIT_CYCLES, _LIMIT_FACTOR = 1_000_000, 100
_CHAIN = 0


class SessionError(DeviceError):
    """A session that cannot go on, or not so far."""


@dataclass(frozen=True)
class Prediction:
    """What a model expects behind each of some tokens.

    tokens: [rows, 8], the likeliest first; -1 where there are not so many. log_probabilities:
    [rows, 8], natural.
    """

    tokens: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]

    @property
    def best(self) -> int:
        """The likeliest token behind the last one."""
        return int(self.tokens[-1, 0])


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


class Session:
    """One sequence. Made by `LoadedDecoder.session`.

    Attributes
    ----------
    position: tokens that it holds, the prefix among them. key_slots: where their keys are. slot:
    its place in the device's memory, or None. image: what its workspace has to hold, while it is
    not there, (offset, bytes). remembers: whether it has its memories, if it is to have some.
    """

    def __init__(self, model: LoadedDecoder, position: int, image: Parts):
        self.model, self.position = model, position
        self.key_slots = model.program.key_slots()
        self.image: Parts | None = image
        self.slot: int | None = None
        self.remembers = True
        self.closed = False

    @property
    def part(self) -> LoadedDecoder:
        return self.model

    # --- what comes next ------------------------------------------------------------------------

    def prefill(
        self, ids: Sequence[int], progress: Callable[[int, int], None] | None = None
    ) -> Prediction:
        """Take any number of tokens: what follows the last one. progress: (tokens done, tokens).

        Raises `InputError`, before anything runs, for a token that there is not and for more than
        the context has room for.
        """
        tokens = self._checked(ids)
        *others, last = self.passes(len(tokens))
        done = self._read(tokens, others, progress)
        prediction = self._predict(tokens[done:], last.rows)
        if progress is not None:
            progress(len(tokens), len(tokens))
        return Prediction(prediction.tokens[-1:], prediction.log_probabilities[-1:])

    def read(self, ids: Sequence[int]) -> None:
        """Take any number of tokens, whatever follows them: as `prefill`, without the head."""
        tokens = self._checked(ids)
        self._read(tokens, self.passes(len(tokens), predicting="none"))

    def step(self, token: int) -> Prediction:
        """Take one token: what follows it."""
        return self._predict(self._checked([token]))

    def follow(self, token: int) -> Prediction:
        """Take a token, and behind it the likeliest ones, as many as the chain has passes, none
        behind an end token: what follows each. Near the end of the context, where attention counts,
        or without a chain, one token.
        """
        tokens, chain, state = self._checked([token]), self.model.chain, self.model.program.state
        if chain is None or not state.fits(self.position, chain.passes, counts=False):
            return self._predict(tokens)
        prediction = self.model.run_chain(self, int(tokens[0]))
        self.position += len(prediction.tokens)
        return prediction

    def verify(self, ids: Sequence[int]) -> Prediction:
        """Take up to 8 tokens at once: what follows each of them.

        In the smallest pass that holds them, whose other rows leave nothing that is ever seen; in
        several passes where there is none, or no room for it.
        """
        tokens = self._checked(ids)
        if len(tokens) > SELECTED:
            raise SessionError(
                f"verify takes at most {SELECTED} tokens, got {len(tokens)}: use prefill"
            )
        if len(tokens) > 1 and self.model.program.state.octaves:
            raise SessionError(
                "a program that prunes keys verifies one token at a time: passes of several prune "
                "nothing, so what they say is not what single tokens would give"
            )
        entry = self.verifying(len(tokens))
        if entry is not None:
            return self._predict(tokens, entry.tokens)
        parts, done = [], 0
        for taken in self.passes(len(tokens), predicting="every"):
            parts.append(self._predict(tokens[done : done + taken.tokens], taken.rows))
            done += taken.tokens
        return Prediction(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.log_probabilities for part in parts]),
        )

    def verifying(self, tokens: int) -> Any | None:
        """The entry of the smallest pass that predicts behind each of so many tokens and fits into
        the context, if there is one."""
        program = self.model.program
        fitting = [
            entry
            for entry in program.entries.values()
            if tokens <= min(entry.tokens, self.room)
            and entry.selected == entry.tokens
            and program.state.fits(self.position, entry.tokens, entry.attention is not None)
        ]
        return min(fitting, key=lambda entry: entry.tokens, default=None)

    def rewind(self, position: int) -> None:
        """Forget all tokens from a position on, but for those of the prefix."""
        first = len(self.model.program.prefix)
        if not first <= position <= self.position:
            raise SessionError(
                f"a session of {self.position} tokens, {first} of them its prefix, cannot go back "
                f"to {position}"
            )
        if not self.keeps(position):
            raise SessionError(
                f"a session of {self.position} tokens with room for "
                f"{self.model.program.state.slots} keys cannot go back to {position}: what stood "
                "there is gone"
            )
        self.position = position

    def keeps(self, position: int) -> bool:
        """Whether all keys in front of a position are there: a window has not moved beyond it."""
        state = self.model.program.state
        return self.position <= state.slots or position in (*range(state.sink + 1), self.position)

    def reset(self) -> None:
        """Forget everything but the prefix."""
        self.rewind(len(self.model.program.prefix))

    def fork(self) -> Session:
        """Another session that holds the same tokens."""
        self.check_open()
        image = [(0, self.model.read_back(self))] if self.image is None else [*self.image]
        fork = Session(self.model, self.position, image)
        fork.remembers, fork.key_slots = self.remembers, self.key_slots.copy()
        return self.model.add(fork)

    @property
    def room(self) -> int:
        """Tokens for which there is room."""
        return self.model.program.context - self.position

    def close(self) -> None:
        """Give its memory back."""
        if not self.closed:
            self.model.forget(self)
        self.closed = True

    # --- how ------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Read the cache back from the device, if it is there alone."""
        if self.image is None:
            self.image = [(0, self.model.read_back(self))]
        self.slot = None

    def passes(self, tokens: int, *, predicting: Predicting = "last") -> list[Pass]:
        """Those that take so many tokens in the fewest cycles (see `cheapest`)."""
        return cheapest(self.model.program, self.position, tokens, predicting=predicting)

    def check_open(self) -> None:
        """Raises `SessionError` if it was closed."""
        if self.closed:
            raise SessionError("the session is closed: make another one")

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int64]:
        self.check_open()
        if not self.remembers:
            raise SessionError(
                f"the session remembers nothing yet: fill it by entry {self.model.filled_by} first"
            )
        return self.model.program.check(self.position, ids)

    def _read(
        self,
        tokens: NDArray[np.int64],
        passes: Sequence[Pass],
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """The first tokens, in passes that predict nothing: how many."""
        done = 0
        for taken in passes:
            part = tokens[done : done + taken.tokens]
            self.model.run(self, part, reading=True, rows=taken.rows)
            self.position += taken.tokens
            done += taken.tokens
            if progress is not None:
                progress(done, len(tokens))
        return done

    def _predict(self, tokens: NDArray[np.int64], rows: int | None = None) -> Prediction:
        prediction = self.model.run(self, tokens, rows=rows)
        self.position += len(tokens)
        assert prediction is not None
        return prediction
