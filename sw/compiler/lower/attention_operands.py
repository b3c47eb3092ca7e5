"""Operands of attention on chip: query blocks, key blocks shared by them, masks and limits."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass

from hw.isa import Memory, Opcode, Region
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, Context
from sw.compiler.lower.params import Params
from sw.compiler.lower.score_bias import Block, ScoreBias
from sw.compiler.lower.shared import Shared
from sw.compiler.lower.tile_attention import QUERY_ROWS, AttentionPlan, plan_attention
from sw.compiler.lower.tile_rows import careful_rows
from sw.compiler.program.program import mask_block_words, mask_starts
from sw.compiler.stream.layout import Form, align, even_split

__all__ = ["Attention", "Job"]


@dataclass(frozen=True)
class Job:
    """One query block of one head of one sequence: rows from `start` of the sequence."""

    bundle: int
    batch: int
    head: int
    start: int
    rows: int


def key_blocks(tokens: int, size: int) -> list[tuple[int, int]]:
    """Key blocks (start, size): all of full size but the last, as the graph prescribes."""
    return [(start, min(size, tokens - start)) for start in range(0, tokens, size)]


class Attention:
    """State of one attention operation."""

    def __init__(self, context: Context, op: QuantAttention):
        c = self.c = context.config
        self.context, self.op = context, op
        self.q, self.k, self.v = (context.values[n] for n in (op.q, op.k, op.v))
        self.query_rows, self.key_rows = (context.sequences(n) for n in (op.q, op.k))
        self.out = context.define(op.out8)
        self.head = self.out.layout
        self.key_block = min(op.key_block, max(self.key_rows.lengths))
        self.bias = None if op.bias is None else ScoreBias(context, op)
        self.plan = self._make_plan()
        self.score_panels = self.mask_words(max(self.key_rows.lengths))
        self.out_panels = self.head.head_columns // c.columns
        self.scale = Params(
            context, Memory.PARAM1, op.second, self.head.word_order(), self.head.features
        )
        self.keys = Shared(context.weight)
        self.masks = Shared(context.mask)
        self.blocks = [key_blocks(keys, op.key_block) for keys in self.key_rows.lengths]
        self.mask_starts = mask_starts(c, self.key_rows.lengths, op.key_block)
        per_sequence = max(b - a for a, b in itertools.pairwise(self.mask_starts))
        self.masks_stay = 2 * per_sequence <= c.mask_words

    def _make_plan(self) -> AttentionPlan:
        context = self.context
        queries = max(self.query_rows.lengths)
        rows = careful_rows(min(queries, QUERY_ROWS), context.caution)
        aside = self.bias.room(rows, self.key_block) if self.bias else (0, 0)
        return plan_attention(
            self.c,
            queries,
            max(self.key_rows.lengths),
            context.graph.batch * self.op.heads,
            self.out.layout,
            self.key_block,
            q_resident=Form.A in self.q.chip,
            out_resident=Form.A in self.out.chip,
            activation_free=max(0, context.activation.largest_gap - aside[0]),
            weight_free=max(0, context.weight.largest_gap - aside[1]),
            caution=context.caution,
        )

    def jobs(self) -> list[Job]:
        """All query blocks, in order; `lanes` consecutive ones form a bundle."""
        jobs = []
        for batch, length in enumerate(self.query_rows.lengths):
            queries = even_split(length, self.plan.rows)
            if self.op.causal:  # no query block may straddle key blocks, see `limit`
                queries = [
                    (start + first, rows)
                    for start, size in self.blocks[batch]
                    for first, rows in even_split(size, self.plan.rows)
                ]
            for head in range(self.op.heads):
                for start, rows in queries:
                    bundle = len(jobs) // self.plan.lanes
                    jobs.append(Job(bundle, batch, head, start, rows))
        return jobs

    def blocks_of(self, job: Job) -> list[int]:
        """Key blocks that a query block sees."""
        blocks = self.blocks[job.batch]
        if not self.op.causal:
            return list(range(len(blocks)))
        return [j for j, (start, _) in enumerate(blocks) if start < job.start + job.rows]

    def mask_words(self, keys: int) -> int:
        """Words of the scores and of the mask of a key block, where there are so many keys."""
        return mask_block_words(self.c.rows, self.c.columns, keys, self.op.key_block)

    def key_of(self, kind: str, job: Job, block: int, first: bool = False) -> Hashable:
        """Who shares a block of K or V, or of the mask. first: of a first pass, over scores alone,
        which shares with the second what stays for all query blocks."""
        if kind == "mask":
            sharing = -1 if self.masks_stay else (job.bundle, first)
            return kind, sharing, job.batch, block
        sharing = -1 if self.plan.resident else (job.bundle, first)
        return kind, sharing, job.batch, job.head, block

    def keys_seen(self, job: Job, block: int) -> int:
        """Keys of a block that any row of the job sees."""
        start, size = self.blocks[job.batch][block]
        return min(size, job.start + job.rows - start) if self.op.causal else size

    def bias_block(self, job: Job, block: int) -> Block:
        """The part of the bias that a job's scores of a key block need."""
        keys = self.blocks[job.batch][block][0], self.keys_seen(job, block)
        return job.head, (job.start, job.rows), keys

    def limit(self, job: Job, block: int) -> dict[str, int]:
        """Fields that cut invalid keys. A job lies within one key block, so a block that needs
        the causal limit never lets it pass the block's own end."""
        start, size = self.blocks[job.batch][block]
        if self.op.causal and start + size > job.start + 1:
            return {"limit": job.start - start + 1, "causal": 1}
        return {"limit": size}

    # --- operands -----------------------------------------------------------------------------

    def _first_key(self, job: Job) -> int:
        """Of the job's sequence, among the keys of all."""
        return int(self.key_rows.starts[job.batch])

    def key_words(self, job: Job, block: int, first: bool) -> tuple[int, int]:
        """(address, words between panels) of a block of K. first: as of `key_of`."""
        start, size = self.blocks[job.batch][block]
        stride, panels = align(align(size, self.c.rows), self.c.columns), self.head.head_panels
        if Form.K in self.k.chip:
            rows = self.k.rows
            skip = job.head * panels * rows + self._first_key(job) + start
            return self.k.chip[Form.K] + skip, rows

        def load(address: int) -> None:
            rows = (self._first_key(job) + start, size)
            self.context.move_panels(
                Opcode.LOAD, self.k, Form.K, (job.head * panels, panels), rows, address, stride
            )

        return self.keys.get(self.key_of("k", job, block, first), panels * stride, load), stride

    def value_words(self, job: Job, block: int) -> tuple[int, int]:
        """(address, words between panels) of a block of V."""
        start, size = self.blocks[job.batch][block]
        stride, panels = align(size, self.c.rows), self.out_panels
        if Form.V in self.v.chip:
            rows = self.v.rows
            first = job.head * panels * rows + self._first_key(job) + start
            return self.v.chip[Form.V] + first, rows

        def load(address: int) -> None:
            rows = (self._first_key(job) + start, size)
            self.context.move_panels(
                Opcode.LOAD, self.v, Form.V, (job.head * panels, panels), rows, address, stride
            )

        return self.keys.get(self.key_of("v", job, block), panels * stride, load), stride

    def mask_word(self, job: Job, block: int, first: bool) -> int:
        """Address of the mask words of a key block. first: as of `key_of`."""
        assert self.op.mask is not None
        base = self.context.masks[self.op.mask, self.op.key_block]
        count = self.mask_words(self.key_rows.lengths[job.batch])

        def load(address: int) -> None:
            index = self.mask_starts[job.batch] + block * count
            self.context.emitter.emit(
                Opcode.LOAD,
                region=Region.IO,
                queue=ACTIVATIONS_QUEUE,
                memory=Memory.MASK,
                offset=base + index * self.c.mask_pitch,
                words=count,
                runs=1,
                address=address,
                word_stride=1,
            )

        return self.masks.get(self.key_of("mask", job, block, first), count, load)

    def first_row(self, job: Job) -> int:
        """Of a query block and its result, among all rows."""
        return int(self.query_rows.starts[job.batch]) + job.start

    def query_words(self, job: Job) -> tuple[int, int, bool]:
        """(address, words between panels, whether to free it) of a query block."""
        panels, row = self.head.head_panels, self.first_row(job)
        if Form.A in self.q.chip:
            stride = self.q.stride
            return self.q.chip[Form.A] + job.head * panels * stride + row, stride, False
        address = self.context.activation.take(panels * job.rows)
        self.context.move_panels(
            Opcode.LOAD,
            self.q,
            Form.A,
            (job.head * panels, panels),
            (row, job.rows),
            address,
            job.rows,
        )
        return address, job.rows, True
