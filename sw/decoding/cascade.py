"""Two programs for the same question: a small one answers, and a large one where it doubts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sw.compiler.errors import InputError
from sw.decoding.cascade_session import CascadeSession, Doubt
from sw.decoding.decoding import Decoding
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import check_threshold, doubted, log_probabilities, self_test
from sw.decoding.vocabulary import check_same_tokens
from sw.driver.decoder import LoadedDecoder

__all__ = ["UNITS", "Answer", "Cascade", "Encoders"]

UNITS = ("token", "answer")
"""What the large model is asked for: a token, or a whole answer."""


class Answer(NamedTuple):
    """What a cascade of encoders gives: outputs of the program that was believed, how sure the
    small one was, and whether the large one took over."""

    outputs: Any
    confidence: float
    taken_over: bool


class Cascade:
    """Language models on one device, from `Device.load_decoders`.

    models: the small one and the large one, with the same tokens. test: by which the small one
    tells how sure it is, a name of `TESTS`. threshold: of that, below which the large one is asked:
    0 never, 1 always; `calibrate` finds one. by: "token" asks for tokens, "answer" for whole
    answers, where the least sure token counts. sampler: that will choose the tokens; rows behind
    drafts that it cannot accept are not tested. Raises `InputError`.

        cascade = Cascade(device.load_decoders(small, large), threshold=0.2)
        session = cascade.session()
        tokens = list(cascade.answer(Decoding(cascade.sampler, ends), session, prompt, 128))

    With "token" a session is like any other, and may be used without `answer`.
    """

    def __init__(
        self,
        models: Sequence[LoadedDecoder],
        test: str = "margin",
        threshold: float = 0.5,
        *,
        by: str = "token",
        sampler: Sampler | None = None,
    ):
        if len(models) != 2:
            raise InputError(f"a cascade is of two models, a small and a large one: {len(models)}")
        if by not in UNITS:
            raise InputError(f"by {by!r}: there are {' and '.join(UNITS)}")
        check_threshold(threshold)
        self.small, self.large = models
        self.test, self.threshold, self.by = self_test(test), threshold, by
        self.sampler = sampler or Sampler()
        small, large = (model.program for model in models)
        check_same_tokens(small, large, ("small model", "large one"), "a cascade needs")
        windows = [program.state.window for program in (small, large)]
        if windows[0] != windows[1]:
            raise InputError(
                f"the small model's cache has a window of {windows[0]} keys, the large one's of "
                f"{windows[1]} (0: all): a cascade needs the same"
            )
        if by == "answer" and windows[0]:
            raise InputError(
                "answer by answer, a text goes back to its question: that needs all keys, no window"
            )

    def session(self) -> CascadeSession:
        """A new sequence, which holds the prefix."""
        threshold = self.threshold if self.by == "token" else 0.0
        doubt = Doubt(self.test, threshold, self.sampler)
        return CascadeSession(self.small.session(), self.large.session(), doubt)

    def answer(
        self, decoding: Decoding, session: CascadeSession, text: Sequence[int], tokens: int
    ) -> Iterator[int]:
        """As `Decoding.answer`. Answer by answer, the tokens come when there are all of them; those
        of the large model are read by either when the text goes on."""
        small = decoding.answer(session, text, tokens)
        if self.by == "token":
            yield from small
            return
        found = list(small)
        if doubted(session.least_sure(len(text) - 1), self.threshold):
            session.asked += 1
            session.rewind(len(text))
            found = list(decoding.answer(session.large, text, tokens))
            session.large.rewind(len(text))
        yield from found


class Encoders:
    """Encoders with heads, or embedders: whatever is called with inputs and gives outputs, such as
    what `Device.load` returns.

    models: the small one and the large one. test: a name of `TESTS`, for outputs that are logits
    [..., labels] in nats; or a function from outputs to confidences, such as that of a `Nearest`.
    threshold: as of a `Cascade`. rows: what the confidences of an answer's rows come to: the least,
    or `np.mean` where each row is an answer of its own. Raises `InputError`.
    """

    def __init__(
        self,
        models: Sequence[Callable[..., Any]],
        test: str | Callable[[Any], NDArray[np.float64]] = "margin",
        threshold: float = 0.5,
        *,
        rows: Callable[[NDArray[np.float64]], Any] = np.min,
    ):
        if len(models) != 2:
            raise InputError(f"a cascade is of two models, a small and a large one: {len(models)}")
        check_threshold(threshold)
        self.small, self.large = models
        self.threshold, self.rows = threshold, rows
        if callable(test):
            self.test = test
            return
        by_name = self_test(test)
        labels = [_labels(model) for model in models]
        if None not in labels and labels[0] != labels[1]:
            raise InputError(
                f"the small model has {labels[0]} labels, the large one {labels[1]}: a cascade "
                "needs the same"
            )
        self.test = lambda outputs: by_name(log_probabilities(outputs))

    def __call__(self, *inputs: Any, **named: Any) -> Answer:
        outputs = self.small(*inputs, **named)
        confidence = float(self.rows(self.test(outputs)))
        if doubted(confidence, self.threshold):
            return Answer(self.large(*inputs, **named), confidence, True)
        return Answer(outputs, confidence, False)


def _labels(model: Any) -> int | None:
    """How many logits a compiled program gives for each row. Raises `InputError` for one that has
    not two of them."""
    program = getattr(model, "program", None)
    if program is None:
        return None
    outputs = program.graph.outputs
    labels = outputs[0].shape[-1] if len(outputs) == 1 and outputs[0].shape else 0
    if labels < 2:
        raise InputError(
            "a program without logits of two labels or more has no self-test: give a function of "
            "its outputs"
        )
    return labels
