"""The loop that makes texts: a pass for each token, or for several drafts of tokens at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hw.isa import SELECTED
from sw.compiler.errors import InputError
from sw.decoding.drafts import Source
from sw.decoding.policy import Auto, Policy
from sw.decoding.sampler import Choices, Sampler
from sw.driver.session import Prediction, Session

__all__ = ["Decoding", "Step", "check_room"]


class Step(NamedTuple):
    """A pass that took a token and `drafted` drafts, of which `accepted` were right.

    position: tokens before it. rows: of the pass. tokens: that came of it. cycles: that the cost
    model expects, drafting included. plain: the same for a pass for each of the tokens.
    """

    position: int
    rows: int
    drafted: int
    accepted: int
    tokens: int
    cycles: float
    plain: float


def check_room(tokens: int, room: int) -> None:
    """Raises `InputError` for a prompt of so many tokens that leaves no room for an answer."""
    if tokens >= room:
        raise InputError(
            f"the prompt has {tokens} tokens, the context has room for {room - 1} and an "
            f"answer: shorten it or make --context larger"
        )


@dataclass
class Decoding:
    """Answers of a model.

    sampler: chooses the tokens. ends: tokens that end an answer. source: of drafts; None: a pass
    for each token. policy: how many drafts to try. Both go on learning from answer to answer.

    Whatever the drafts are, with temperature 0 the tokens are those of decoding without drafts;
    with another one they are drawn from the same distribution, with other random numbers. What
    the session holds is the same in any case.

    Attributes
    ----------
    steps: all passes behind prompts.
    """

    sampler: Sampler
    ends: Collection[int] = ()
    source: Source | None = None
    policy: Policy = field(default_factory=Auto)
    steps: list[Step] = field(default_factory=list)

    def answer(self, session: Session, text: Sequence[int], tokens: int) -> Iterator[int]:
        """Up to `tokens` tokens that follow `text`. The session holds the first `session.position`
        of it, and takes the others first.

        Ends at an end token, which is not given, and where the context is full. Until then the
        session may be some tokens ahead of those given. Raises `InputError`, before anything runs,
        for a text that leaves no room.
        """
        rest = text[session.position :]
        check_room(len(rest), session.room)
        found = [self.sampler.choose(session.prefill(rest))]
        if self.source is not None:
            self.source.begin([*text, *found])
        while True:
            for token in found:
                if token in self.ends:
                    return
                yield token
            tokens -= len(found)
            if tokens <= 0 or not session.room:
                return
            found = self._next(session, found[-1], tokens - 1)

    def _next(self, session: Session, token: int, most: int) -> list[int]:
        """What follows `token`, which the session does not hold yet: drafts that were accepted,
        `most` at most, and one more token, unless a draft ends the text."""
        position, entries = session.position, session.model.program.entries
        drafts, drawn, rows, cycles = self._drafts(session, most)
        found = self._verified(session.verify([token, *drafts]), drafts, drawn)
        session.rewind(position + len(found))  # the last one is in no pass yet
        accepted = min(len(found), len(drafts)) if found == drafts[: len(found)] else len(found) - 1
        plain = sum(entries[1].estimated_cycles(position + n) for n in range(len(found)))
        self.policy.account(cycles, plain)
        if self.source is not None:
            self.source.take(found, accepted, judged=min(len(found), len(drafts)))
        step = Step(position, rows, len(drafts), accepted, len(found), cycles, plain)
        self.steps.append(step)
        return found

    def _drafts(self, session: Session, most: int) -> tuple[list[int], list[Choices], int, float]:
        """Drafts, what each was drawn from, rows of the pass that verifies them, and the cycles
        expected of it all."""
        source = self.source
        if source is None:
            return [], [], 1, session.model.program.entries[1].estimated_cycles(session.position)
        chances = source.chances(min(most, SELECTED - 1))
        rows, costs = {}, {}
        for count in range(1 + len(chances)):
            entry = session.verifying(1 + count)
            if entry is not None:
                rows[count] = entry.tokens
                costs[count] = entry.estimated_cycles(session.position)
                costs[count] += source.cost(count) if count else 0
        count = self.policy.count(chances, costs)
        drafts, drawn = source.draft(count) if count else ([], [])
        return drafts, drawn, rows[count], costs[count]

    def _verified(
        self, prediction: Prediction, drafts: Sequence[int], drawn: Sequence[Choices]
    ) -> list[int]:
        """The drafts up to the first that is rejected, and the token in its place or behind."""
        for row, (draft, choices) in enumerate(zip(drafts, drawn, strict=True)):
            wanted = self.sampler.choices(prediction, row)
            if not self.sampler.accepts(draft, choices, wanted):
                return [*drafts[:row], self.sampler.draw(wanted.beyond(choices))]
            if draft in self.ends:
                return list(drafts[: row + 1])
        return [*drafts, self.sampler.choose(prediction)]
