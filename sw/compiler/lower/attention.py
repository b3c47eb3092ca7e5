"""Lower attention: online softmax over key blocks, two streams in turn.

A stream works through query blocks ("jobs"). Its step for key block j is P V of block j-1, the
scores of block j, and their softmax; the steps of the streams alternate, so that the softmax of
one runs while the array works for the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from hw.isa import Opcode
from hw.softmax.golden import largest_drop
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.lower.attention_operands import Attention, Job
from sw.compiler.lower.context import Context
from sw.compiler.lower.destination import Bytes
from sw.compiler.lower.params import keep_if_room
from sw.compiler.lower.steps import Step
from sw.compiler.lower.streams import Stream, take_turns
from sw.compiler.stream.layout import Form

__all__ = ["lower_attention"]


class _Lane(Stream[Job]):
    """A stream of query blocks."""

    def __init__(self, attention: Attention):
        a = self.a = attention
        panels = -(-a.key_block // a.c.rows)
        super().__init__(a.context, a.plan.rows, a.score_panels, a.out_panels, panels)

    def run(self, jobs: list[Job]) -> Iterator[None]:
        """Emit the jobs; yields where the other stream takes its turn."""
        pending: tuple[Job, int, bool] | None = None
        for job in jobs:
            query = self.a.query_words(job)
            blocks = self.a.blocks_of(job)
            if not self.context.switches.one_pass:
                if pending is not None:
                    self._values(*pending)
                pending = None
                yield from self._maxima(job, blocks, query)
            for block in blocks:
                if pending is not None:
                    self._values(*pending)
                self._scores(job, block, query)
                if block == blocks[-1] and query[2]:
                    self.a.context.activation.give_back(query[0])
                pending = (job, block, block == blocks[-1])
                yield
        if pending is not None:
            self._values(*pending)

    def _maxima(self, job: Job, blocks: list[int], query: tuple[int, int, bool]) -> Iterator[None]:
        """A pass over the scores for their running maximum alone. A single group's weights are
        computed with it, which nobody reads."""
        for block in blocks:
            self._products(job, block, query, first=True)
            self._softmax(job, block, 1)
            yield

    def _scores(self, job: Job, block: int, query: tuple[int, int, bool]) -> None:
        """Scores of one key block, and their softmax."""
        self._products(job, block, query)
        panels = -(-self.a.keys_seen(job, block) // self.a.c.rows)
        self._softmax(job, block, panels * self.a.c.groups_per_row_panel)

    def _softmax(self, job: Job, block: int, groups: int) -> None:
        a = self.a
        shift, drop = a.op.score_shift[job.head], largest_drop(a.key_rows.lengths[job.batch])
        self.emit_softmax(job.rows, groups, shift, drop, block, a.limit(job, block))

    def _products(
        self, job: Job, block: int, query: tuple[int, int, bool], first: bool = False
    ) -> None:
        """Scores of one key block. first: as of `Attention.key_of`."""
        a, c = self.a, self.a.c
        biased = a.bias is not None and a.bias.emit(
            job.batch, a.bias_block(job, block), self.scores
        )
        panels = -(-a.keys_seen(job, block) // c.rows)
        address, stride = a.key_words(job, block, first)
        masked = {}
        if a.op.mask is not None:
            masked = {"mask": 1, "mask_address": a.mask_word(job, block, first)}
        a.context.emitter.emit(
            Opcode.GEMM,
            rows=job.rows,
            k_tiles=a.head.head_panels,
            n_tiles=-(-panels * c.rows // c.columns),
            a_address=query[0],
            a_stride=query[1],
            w_address=address,
            w_by_column=1,
            w_k_stride=stride,
            w_n_stride=c.columns,
            acc_address=self.scores,
            acc_stride=job.rows,
            accumulate=int(biased),
            row_max=1,
            slot=self.slot,
            **masked,
            **a.limit(job, block),
        )
        if Form.K not in a.k.chip:
            a.keys.used(a.key_of("k", job, block, first))
        if masked:
            a.masks.used(a.key_of("mask", job, block, first))

    def _values(self, job: Job, block: int, last: bool) -> None:
        """P V of one key block; behind the last one the division."""
        a, c = self.a, self.a.c
        panels = -(-a.keys_seen(job, block) // c.rows)
        self.emit_values(job.rows, panels, a.value_words(job, block), block, {})
        if Form.V not in a.v.chip:
            a.keys.used(a.key_of("v", job, block))
        if not last:
            return
        words = (job.head * a.head.head_panels, a.head.head_panels)
        rows = (a.first_row(job), job.rows)
        target = Bytes.take(a.context, a.out, Form.A, words, rows)
        first, groups = (w * c.groups_per_row_panel for w in words)
        a.context.emitter.emit(
            Opcode.SCALE,
            rows=job.rows,
            groups=groups,
            acc_address=self.output,
            acc_stride=job.rows,
            param1=a.scale.get(first, groups),
            slot=self.slot,
            **target.fields,
        )
        a.scale.done()
        target.store()


def lower_attention(context: Context, step: Step) -> None:
    """Emit one attention operation."""
    (op,) = step.ops
    assert isinstance(op, QuantAttention)
    attention = Attention(context, op)
    keep_if_room([attention.scale], context.config.param_words)
    jobs, passes = attention.jobs(), (False,) if context.switches.one_pass else (True, False)
    for job in jobs:
        for block in attention.blocks_of(job):
            attention.keys.uses[attention.key_of("v", job, block)] += 1
            for first in passes:
                attention.keys.uses[attention.key_of("k", job, block, first)] += 1
                if op.mask is not None:
                    attention.masks.uses[attention.key_of("mask", job, block, first)] += 1
                if attention.bias and attention.bias.used(attention.bias_block(job, block)):
                    attention.bias.diagonals.uses[job.batch, job.head] += 1
    take_turns([_Lane(attention) for _ in range(attention.plan.lanes)], jobs)
    attention.scale.free_all()
