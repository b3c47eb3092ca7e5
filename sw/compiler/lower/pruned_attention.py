"""Lower attention over a cache that leaves out key blocks, for one token.

The high bytes of all blocks' keys are read, from the newest block back, and scored; KEEP says by
that whether low bytes and values follow. A register holds the answer until the block is done with,
so those of two blocks of each stream are in use. While one stream awaits its answer, the others'
next blocks load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping

from hw.isa import SELECTED, Opcode
from sw.compiler.errors import CompileError
from sw.compiler.lower.cached_attention import CachedAttention, CachedLane, Job, emit_jobs
from sw.compiler.lower.context import Context
from sw.compiler.lower.params import keep_if_room
from sw.compiler.lower.steps import HeadsAttention, Step
from sw.compiler.program.decoder_program import Register
from sw.compiler.stream.allocate import DoesNotFit

__all__ = ["ANSWERS", "lower_pruned_attention"]

ANSWERS = range(Register.KEEP, Register.END)
"""Registers that say whether a block stays, two for each stream."""


class _Attention(CachedAttention):
    """What the streams share. answers: register of each block, by key/value head, as they are."""

    kinds = ("high", "low", "v")

    def __init__(self, context: Context, lowered: HeadsAttention):
        self.answers: dict[tuple[int, int], int] = {}
        super().__init__(context, lowered)
        assert context.graph.decoder is not None
        self.octaves = context.graph.decoder.octaves
        plan, c = self.plan, self.c
        if plan.heads != self.sharing:
            raise CompileError(
                f"{self.op.place or self.op.out8}: pruned keys need room for the {self.sharing} "
                "heads that share keys at once"
            )
        slots = (c.row_slots - 2 * SELECTED) // (2 * plan.rows)
        lanes = min(plan.lanes, len(ANSWERS) // 2, slots)
        if lanes < 1:
            raise DoesNotFit("pruned keys do not fit the row state")
        self.plan = dataclasses.replace(plan, lanes=lanes)

    def planned(self, score_panels: int, block_words: int):
        """Two blocks' scores, and the high bytes of the next ones."""
        return super().planned(2 * score_panels, block_words + self.panels * self.key_words)

    def key_of(self, kind: str, job: Job, block: int) -> Hashable:
        return kind, job.number, block

    def condition(self, job: Job, block: int) -> Mapping[str, int]:
        return {**super().condition(job, block), **self.answer(job, block)}

    def load_condition(self, job: Job, block: int) -> Mapping[str, int]:
        return {**super().load_condition(job, block), **self.answer(job, block)}

    def answer(self, job: Job, block: int) -> dict[str, int]:
        register = self.answers.get((job.kv_head, block))
        return {} if register is None else {"predicate": register}

    def trim(self, block: int) -> dict[str, int]:
        """None: an answer does not say how far the position is."""
        return {}

    def plane(self, part: int, job: Job, block: int) -> int:
        """Address of the high (part 0) or low bytes of a key block."""

        def load(address: int) -> None:
            self.load_keys(job, block, part, address)

        key = self.key_of(self.kinds[part], job, block)
        return self.keys.get(key, self.panels * self.key_words, load)


class _Lane(CachedLane):
    """A stream of jobs. registers: two, for answers."""

    a: _Attention

    def __init__(self, attention: _Attention, registers: range):
        super().__init__(attention)
        a, context = attention, attention.context
        self.registers, self.slots = registers, (self.slot, context.softmax.take(a.plan.rows))
        self.places = self.scores, context.accumulator.take(a.score_panels * a.plan.rows)

    def free(self) -> None:
        self.scores = self.places[0]
        super().free()
        self.context.accumulator.give_back(self.places[1])
        self.context.softmax.give_back(self.slots[1])

    def run(self, jobs: list[Job]) -> Iterator[None]:
        """Emit the jobs. What waits for loads stands behind the next loads of high bytes, which
        are certain if it is executed itself: so it need not wait for all that may be dropped."""
        a = self.a
        blocks = [0, *range(len(a.blocks) - 1, 0, -1)]
        for job in jobs:
            query = a.query(job)
            for turn in range(-1, len(blocks) + 1):
                if turn >= 1:
                    self.add_values(job, blocks[turn - 1])
                    a.answers.pop((job.kv_head, blocks[turn - 1]), None)
                if turn + 1 < len(blocks):
                    self._screen(job, blocks[turn + 1], query, turn + 1)
                if 0 <= turn < len(blocks):
                    self._refine(job, blocks[turn], query, turn, (*blocks, None, None)[turn + 2])
                yield
            self.divide(job)
            if query[2]:
                a.context.activation.give_back(query[0])

    def _screen(self, job: Job, block: int, query: tuple[int, int, bool], turn: int) -> None:
        """Scores by the high bytes of a key block, and whether it stays."""
        a, emit = self.a, self.a.context.emitter.emit
        seen, self.scores = a.condition(job, block), self.places[turn % 2]
        emit(
            Opcode.GEMM,
            **(self.products(job, block, query) | self.limit(block)),
            w_address=a.plane(0, job, block),
            row_max=1,
            slot=self.slots[1],
        )
        a.keys.used(a.key_of("high", job, block))
        register = self.registers[turn % 2] if block else 0
        self.keep = emit(
            Opcode.KEEP,
            rows=job.rows,
            slot=self.slots[1],
            score_shift=self.score_shift(job),
            first=int(turn == 0),
            octaves=a.octaves,
            register=register,
            **({n: seen[n] for n in ("limit", "predicate")} if block else {}),
        )
        if block:
            a.answers[job.kv_head, block] = register

    def _refine(
        self,
        job: Job,
        block: int,
        query: tuple[int, int, bool],
        turn: int,
        following: int | None,
    ) -> None:
        """Low bytes behind the high ones, and the weights."""
        a, emitter = self.a, self.a.context.emitter
        self.scores = self.places[turn % 2]
        if block:
            emitter.settle(self.registers[turn % 2])
        low, _ = a.plane(1, job, block), a.value_block(job, block)
        if following is not None:
            a.plane(0, job, following)
        emitter.emit(
            Opcode.LOW_GEMM,
            behind=self.keep,
            **(self.products(job, block, query) | self.limit(block)),
            w_address=low,
            accumulate=1,
            row_max=1,
            slot=self.slot,
        )
        a.keys.used(a.key_of("low", job, block))
        self.weigh(job, block)


def lower_pruned_attention(context: Context, step: Step) -> None:
    """Emit one attention operation of a pass of one token."""
    (op,) = step.ops
    assert isinstance(op, HeadsAttention)
    attention = _Attention(context, op)
    keep_if_room([attention.scale], context.config.param_words)
    lanes = range(attention.plan.lanes)
    emit_jobs(attention, [_Lane(attention, ANSWERS[2 * i : 2 * i + 2]) for i in lanes])
