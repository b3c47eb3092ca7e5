"""What a small language model says where a large one writes: how sure it is, and whether it is
right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.isa import SELECTED
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import calibrate, self_test
from sw.driver.decoder import LoadedDecoder
from sw.driver.session import Prediction

__all__ = ["Observed", "digest_of", "observe", "predictions"]


@dataclass(frozen=True)
class Observed:
    """The small model's predictions at each token of the large one's answers.

    logs: [tokens, 8], log-probabilities, the likeliest first. right: [tokens], whether that one is
    the large model's, too.
    """

    logs: NDArray[np.float64]
    right: NDArray[np.bool_]

    def threshold(self, test: str, agreement: float) -> float:
        """See `calibrate`."""
        return calibrate(self_test(test)(self.logs), ~self.right, agreement)

    def __add__(self, other: Observed) -> Observed:
        """Both, one behind the other."""
        logs, right = [self.logs, other.logs], [self.right, other.right]
        return Observed(np.concatenate(logs), np.concatenate(right))


def digest_of(programs: Sequence[DecoderProgram], what: object) -> str:
    """Names, in a cache, what these programs say to something; its `repr` tells it apart."""
    digest = hashlib.sha256(repr(what).encode())
    for program in programs:
        digest.update(program.constants.tobytes())
        for entry in program.entries.values():
            digest.update(entry.commands.tobytes())
    return digest.hexdigest()[:16]


def predictions(model: LoadedDecoder, text: Sequence[int], begin: int) -> Prediction:
    """What a model expects behind each token of a text from `begin` on, up to 8 at once."""
    session = model.session()
    if begin > session.position:
        session.read(text[session.position : begin])
    parts = []
    while session.position < len(text):
        parts.append(session.verify(text[session.position :][:SELECTED]))
    session.close()
    tokens, logs = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("tokens", "log_probabilities")
    )
    return Prediction(tokens[begin - len(text) :], logs[begin - len(text) :])


def observe(
    small: LoadedDecoder,
    large: LoadedDecoder,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    tokens: int,
    update: Callable[[float, float], None] = lambda _done, _total: None,
) -> Observed:
    """Answers of the large model, of so many tokens at most, without a temperature; the small one
    reads them. prompts: of token numbers, the prefix among them."""
    logs, right = [], []
    for number, prompt in enumerate(prompts):
        update(number, len(prompts))
        session, decoding = large.session(), Decoding(Sampler(), ends, Lookup())
        room = min(model.program.context for model in (small, large)) - len(prompt)
        answer = list(decoding.answer(session, prompt, min(tokens, room)))
        session.close()
        text, begin = [*prompt, *answer], len(prompt) - 1
        pair = [predictions(model, text, begin) for model in (small, large)]
        logs.append(pair[0].log_probabilities)
        right.append(pair[0].tokens[:, 0] == pair[1].tokens[:, 0])
    update(len(prompts), len(prompts))
    return Observed(np.concatenate(logs), np.concatenate(right))
