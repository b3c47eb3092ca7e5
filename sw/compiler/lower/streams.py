"""Streams of attention that take turns: one's softmax runs while the array works for others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from hw.isa import Memory, Opcode
from sw.compiler.lower.context import Context

__all__ = ["Stream", "take_turns"]

JobType = TypeVar("JobType")


class Stream(ABC, Generic[JobType]):
    """One stream with its own scores, weights P, output O and row state, for some rows at a time.

    Parameters
    ----------
    rows: at most, at a time. score_panels, out_panels: panels of C columns of a row of scores and
    of the result. weight_panels: panels of R weights.
    """

    def __init__(
        self, context: Context, rows: int, score_panels: int, out_panels: int, weight_panels: int
    ):
        self.context, self.out_panels = context, out_panels
        self.scores = context.accumulator.take(score_panels * rows)
        self.output = context.accumulator.take(out_panels * rows)
        self.weights = context.activation.take(weight_panels * rows)
        self.slot = context.softmax.take(rows)

    def free(self) -> None:
        self.context.accumulator.give_back(self.scores)
        self.context.accumulator.give_back(self.output)
        self.context.activation.give_back(self.weights)
        self.context.softmax.give_back(self.slot)

    @abstractmethod
    def run(self, jobs: list[JobType]) -> Iterator[None]:
        """Emit the jobs; yields where the other streams take their turns."""

    def emit_softmax(
        self,
        rows: int,
        groups: int,
        score_shift: int,
        drop: int,
        block: int,
        limit: Mapping[str, int],
    ) -> None:
        """Weights of so many groups of V keys, the `block`-th of a row."""
        self.context.emitter.emit(
            Opcode.SOFTMAX,
            rows=rows,
            groups=groups,
            acc_address=self.scores,
            acc_stride=rows,
            dst_memory=Memory.ACTIVATION,
            dst_address=self.weights,
            dst_stride=rows,
            slot=self.slot,
            score_shift=score_shift,
            first=int(block == 0),
            drop=drop,
            **limit,
        )

    def emit_values(
        self,
        rows: int,
        panels: int,
        words: tuple[int, int],
        block: int,
        limit: Mapping[str, int],
    ) -> None:
        """Add P V of so many panels of R keys to the output. words: address of the values, words
        between their panels."""
        self.context.emitter.emit(
            Opcode.GEMM,
            rows=rows,
            k_tiles=panels,
            n_tiles=self.out_panels,
            a_address=self.weights,
            a_stride=rows,
            a_unsigned=1,
            w_address=words[0],
            w_k_stride=self.context.config.rows,
            w_n_stride=words[1],
            acc_address=self.output,
            acc_stride=rows,
            accumulate=int(block > 0),
            rescale=int(block > 0),
            slot=self.slot,
            **limit,
        )


def take_turns(streams: Sequence[Stream[JobType]], jobs: Sequence[JobType]) -> None:
    """Emit all jobs, those of each stream in their order; then the streams end."""
    runs = [stream.run(list(jobs[i :: len(streams)])) for i, stream in enumerate(streams)]
    while runs:
        runs = [run for run in runs if next(run, StopIteration) is not StopIteration]
    for stream in streams:
        stream.free()
