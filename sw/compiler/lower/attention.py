"""Lower attention: online softmax over key blocks, two streams in turn.

A stream works through query blocks ("jobs"). Its step for key block j is P V of block j-1, the
scores of block j, and their softmax; the steps of the streams alternate, so that the softmax of
one runs while the array works for the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from hw.isa import Memory, Opcode
from hw.softmax.golden import largest_drop
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.lower.attention_operands import Attention, Job
from sw.compiler.lower.context import Context
from sw.compiler.lower.destination import Bytes
from sw.compiler.lower.params import keep_if_room
from sw.compiler.lower.steps import Step
from sw.compiler.stream.layout import Form

__all__ = ["lower_attention"]


class _Lane:
    """One stream with its own scores, weights P, output O and row state."""

    def __init__(self, attention: Attention):
        a = self.a = attention
        context, rows = a.context, a.plan.rows
        self.scores = context.accumulator.take(a.score_panels * rows)
        self.output = context.accumulator.take(a.out_panels * rows)
        self.weights = context.activation.take(-(-a.key_block // a.c.rows) * rows)
        self.slot = context.softmax.take(rows)

    def free(self) -> None:
        context = self.a.context
        context.accumulator.give_back(self.scores)
        context.accumulator.give_back(self.output)
        context.activation.give_back(self.weights)
        context.softmax.give_back(self.slot)

    def run(self, jobs: list[Job]) -> Iterator[None]:
        """Emit the jobs; yields where the other stream takes its turn."""
        pending: tuple[Job, int, bool] | None = None
        for job in jobs:
            query = self.a.query_words(job)
            blocks = self.a.blocks_of(job)
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

    def _scores(self, job: Job, block: int, query: tuple[int, int, bool]) -> None:
        """Scores of one key block, and their softmax."""
        a, c = self.a, self.a.c
        biased = a.bias is not None and a.bias.emit(
            job.batch, a.bias_block(job, block), self.scores
        )
        panels = -(-a.keys_seen(job, block) // c.rows)
        address, stride = a.key_words(job, block)
        masked = {}
        if a.op.mask is not None:
            masked = {"mask": 1, "mask_address": a.mask_word(job, block)}
        limit = a.limit(job, block)
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
            **limit,
        )
        if Form.K not in a.k.chip:
            a.keys.used(a.key_of("k", job, block))
        if masked:
            a.masks.used(a.key_of("mask", job, block))
        a.context.emitter.emit(
            Opcode.SOFTMAX,
            rows=job.rows,
            groups=panels * c.groups_per_row_panel,
            acc_address=self.scores,
            acc_stride=job.rows,
            dst_memory=Memory.ACTIVATION,
            dst_address=self.weights,
            dst_stride=job.rows,
            slot=self.slot,
            score_shift=a.op.score_shift[job.head],
            first=int(block == 0),
            drop=largest_drop(a.key_count),
            **limit,
        )

    def _values(self, job: Job, block: int, last: bool) -> None:
        """P V of one key block; behind the last one the division."""
        a, c = self.a, self.a.c
        panels = -(-a.keys_seen(job, block) // c.rows)
        address, stride = a.value_words(job, block)
        a.context.emitter.emit(
            Opcode.GEMM,
            rows=job.rows,
            k_tiles=panels,
            n_tiles=a.out_panels,
            a_address=self.weights,
            a_stride=job.rows,
            a_unsigned=1,
            w_address=address,
            w_by_column=0,
            w_k_stride=c.rows,
            w_n_stride=stride,
            acc_address=self.output,
            acc_stride=job.rows,
            accumulate=int(block > 0),
            rescale=int(block > 0),
            slot=self.slot,
        )
        if Form.V not in a.v.chip:
            a.keys.used(a.key_of("v", job, block))
        if not last:
            return
        words = (job.head * a.head.head_panels, a.head.head_panels)
        rows = (job.batch * a.queries + job.start, job.rows)
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
    jobs = attention.jobs()
    for job in jobs:
        for block in attention.blocks_of(job):
            for kind, shared in (("k", attention.keys), ("v", attention.keys)):
                shared.uses[attention.key_of(kind, job, block)] += 1
            if op.mask is not None:
                attention.masks.uses[attention.key_of("mask", job, block)] += 1
            if attention.bias and attention.bias.used(attention.bias_block(job, block)):
                attention.bias.diagonals.uses[job.batch, job.head] += 1
    lanes = [_Lane(attention) for _ in range(attention.plan.lanes)]
    runs = [lane.run(jobs[i :: len(lanes)]) for i, lane in enumerate(lanes)]
    while runs:
        runs = [run for run in runs if next(run, StopIteration) is not StopIteration]
    for lane in lanes:
        lane.free()
    attention.scale.free_all()
