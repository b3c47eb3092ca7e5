"""Tags of personal data in integers against float32, on made-up medical notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sw.models import rampart
from sw.models.tagger import Tagger

__all__ = ["Agreement", "compare"]

Update = Callable[[float, float], None]


@dataclass(frozen=True)
class Agreement:
    """tokens: of all texts, `same` of which have float32's tag. personal: those that float32 tags
    as personal data, `personal_same` of which have the same tag. texts: masked texts, `texts_same`
    of which are float32's to the letter."""

    tokens: int
    same: int
    personal: int
    personal_same: int
    texts: int
    texts_same: int

    def json(self) -> dict[str, int]:
        return asdict(self)


def compare(
    tagger: Tagger, texts: Sequence[str], update: Update = lambda _done, _total: None
) -> Agreement:
    """Agreement over these texts."""
    counts = dict.fromkeys(Agreement.__dataclass_fields__, 0)
    for number, text in enumerate(texts):
        update(number, len(texts))
        tokens = rampart.tokenise(text)
        logits = list(map(rampart.float_logits, rampart.window_ids(tokens)))
        exact, found = rampart.tags(tokens, logits), tagger.reference_tags(text)
        personal = exact != 0
        masked = [rampart.masked(text, rampart.spans(tokens, tags)) for tags in (exact, found)]
        for name, count in (
            ("tokens", len(exact)),
            ("same", (exact == found).sum()),
            ("personal", personal.sum()),
            ("personal_same", (exact == found)[personal].sum()),
            ("texts", 1),
            ("texts_same", masked[0] == masked[1]),
        ):
            counts[name] += int(count)
    return Agreement(**counts)
