"""Where integers and float32 part in a text, and how sure float32 is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sw.bench.speech import Clip
from sw.speech.audio import RATE
from sw.speech.float_listener import FloatListener
from sw.speech.listening import Task, Window

__all__ = ["Parting", "parting"]


@dataclass(frozen=True)
class Parting:
    """The first choice of a clip that is another one. tokens: before it. ours, theirs: what
    integers and float32 write. nats: by which float32 takes its own to be likelier; below 0 where
    all stamps together were likelier than a word."""

    clip: str
    tokens: int
    ours: str
    theirs: str
    nats: float

    def __str__(self) -> str:
        return (
            f"{self.clip}: behind {self.tokens} tokens float32 prefers {self.theirs!r} to "
            f"{self.ours!r} by {self.nats:.2f} nats"
        )


def parting(
    listener: FloatListener,
    clip: Clip,
    ours: Sequence[Window],
    theirs: Sequence[Window],
    task: Task,
) -> Parting | None:
    """Of a clip; None if there is none, or if either has written a text again."""
    model = listener.model
    for mine, other in zip(ours, theirs, strict=False):
        if mine.temperature or other.temperature:
            return None
        texts = [[*window.tokens, model.end] for window in (mine, other)]
        if texts[0] == texts[1]:
            continue
        place = next(n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
        samples = clip.samples[round(mine.start * RATE) :][: listener.seconds * RATE]
        text = listener.listen(samples, mine)
        found = text.prefill([*task.writer(model).prompt, *texts[0][:place]])
        choices = [each[place] for each in texts]
        logs = [float(found.log_probabilities[0][found.tokens[0] == token][0]) for token in choices]
        names = [model.tokenizer.decode([token], skip_special_tokens=False) for token in choices]
        return Parting(clip.name, place, *names, nats=logs[1] - logs[0])
    return None
