"""A sequence of a language model on a device, which grows, with its own cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import SELECTED
from sw.driver.errors import DeviceError
from sw.driver.passes import Pass, Predicting, cheapest
from sw.driver.shared_memory import Part, Parts

__all__ = ["Prediction", "Session", "SessionError"]


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


class Session:
    """One sequence. Made by `LoadedDecoder.session`.

    Attributes
    ----------
    model: the `LoadedDecoder` of which it is one. position: tokens that it holds, the prefix among
    them. key_slots: where their keys are. slot: its place in the device's memory, or None. image:
    what its workspace has to hold, while it is not there, (offset, bytes). remembers: whether it
    has its memories, if it is to have some.
    """

    def __init__(self, model: Any, position: int, image: Parts):
        self.model, self.position = model, position
        self.key_slots = model.program.key_slots()
        self.image: Parts | None = image
        self.slot: int | None = None
        self.remembers = True
        self.closed = False

    @property
    def part(self) -> Part:
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
