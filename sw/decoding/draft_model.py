"""Drafts of a smaller model with the same tokens, in a session of its own."""

from __future__ import annotations

from collections.abc import Sequence

from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.drafts import Acceptance
from sw.decoding.sampler import Choices, Sampler
from sw.decoding.vocabulary import check_same_tokens
from sw.driver.session import Session

__all__ = ["DraftModel"]


class DraftModel:
    """Each draft takes a pass of the smaller model, which must be one of the same device.

    session: of the smaller model. sampler: chooses its tokens, the way the larger one's are chosen.
    What it reads of the prompt is not counted among the cycles of drafts.
    """

    def __init__(self, session: Session, sampler: Sampler):
        self.session, self.sampler = session, sampler
        self._text = list(session.model.program.prefix)
        self._acceptance = Acceptance(1)

    def check(self, other: DecoderProgram) -> None:
        """Raises `InputError` unless the tokens of the larger model are the same."""
        mine = self.session.model.program
        check_same_tokens(mine, other, ("draft model", "model"), "drafts need")

    def begin(self, text: Sequence[int]) -> None:
        common, most = 0, min(self.session.position, len(text) - 1)
        while common < most and self._text[common] == text[common]:
            common += 1
        self.session.rewind(common)
        self._text = list(text)
        rest = self._text[common:-1]
        if rest and len(rest) < self.session.room:
            self.session.prefill(rest)

    def chances(self, count: int) -> list[float]:
        fitting = self.session.room - len(self._behind()) + 1
        return [self._acceptance.chance(0)] * max(0, min(count, fitting))

    def cost(self, count: int) -> float:
        position, entries = self.session.position, self.session.model.program.entries
        total = 0.0
        for taken in self.session.passes(len(self._behind())):
            total += entries[taken.rows].estimated_cycles(position, taken.reading)
            position += taken.tokens
        last = len(self._text)
        return total + sum(entries[1].estimated_cycles(last + n) for n in range(count - 1))

    def draft(self, count: int) -> tuple[list[int], list[Choices]]:
        tokens: list[int] = []
        drawn: list[Choices] = []
        prediction = self.session.prefill(self._behind())
        while True:
            drawn.append(self.sampler.choices(prediction))
            tokens.append(self.sampler.draw(drawn[-1]))
            if len(tokens) == count:
                return tokens, drawn
            prediction = self.session.step(tokens[-1])

    def take(self, tokens: Sequence[int], accepted: int, judged: int) -> None:
        for n in range(judged):
            self._acceptance.observe(0, n < accepted)
        held = min(self.session.position, len(self._text) + accepted)
        self.session.rewind(held)
        self._text += tokens

    def _behind(self) -> list[int]:
        """Tokens of the text that the session does not hold."""
        return self._text[self.session.position :]
