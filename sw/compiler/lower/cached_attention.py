"""Lower attention over a cache: online softmax over key blocks, several streams in turn.

A stream works through jobs: some tokens of the pass, of all query heads that share keys or of one
of them. Where the position of the pass makes a key block empty, its commands are dropped; of a
memory all keys are seen.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hw.isa import Memory, Opcode
from hw.softmax.golden import largest_drop
from sw.compiler.graph.decoder import key_blocks
from sw.compiler.lower.attention_sums import AttentionSums
from sw.compiler.lower.caches import load_block
from sw.compiler.lower.context import Context
from sw.compiler.lower.params import Params, keep_if_room
from sw.compiler.lower.shared import Shared
from sw.compiler.lower.steps import HeadsAttention, Step
from sw.compiler.lower.streams import Stream, take_turns
from sw.compiler.lower.tile_attention import CachedPlan, plan_cached_attention
from sw.compiler.program.decoder_program import of_caches
from sw.compiler.stream.layout import Form, align, layout_of

__all__ = ["CachedAttention", "CachedLane", "Job", "emit_jobs", "lower_cached_attention"]


@dataclass(frozen=True)
class Job:
    """Tokens from `start` of the pass, of query heads from `head` on, of those that share keys."""

    number: int
    kv_head: int
    head: int
    heads: int
    start: int
    tokens: int

    @property
    def rows(self) -> int:
        return self.heads * self.tokens


class CachedAttention:
    """What the streams share."""

    kinds: tuple[str, ...] = ("k", "v")
    """What of a key block is loaded on its own, once for all jobs that read it."""

    def __init__(
        self, context: Context, lowered: HeadsAttention, sums: AttentionSums | None = None
    ):
        c = self.c = context.config
        self.context, self.lowered, op = context, lowered, lowered.op
        assert context.graph.decoder is not None
        self.op, self.tokens = op, context.graph.tokens
        if not context.switches.one_pass:
            self.kinds = ("first k", *self.kinds)
        self.sharing = op.heads // op.kv_heads
        cache = context.graph.decoder.caches[op.cache]
        self.head = layout_of(c, cache.dim)
        self.panels, self.out_panels = self.head.panels, self.head.column_panels
        self.planes = [context.caches[name] for name in lowered.k]
        self.value_planes = [context.caches[name] for name in lowered.v]
        self.positions = self.planes[0].positions
        # A text's cache has blocks for all positions; those of a memory are always full.
        self.fixed = cache.memory is not None
        self.blocks = key_blocks(op, context.graph.decoder.keys_of(op.cache))
        self.out = context.define(lowered.out8)
        self.drop = largest_drop(context.graph.decoder.keys_of(op.cache))
        _, self.register = of_caches(context.graph.decoder)
        size = max(size for _, size in self.blocks)
        self.key_words = align(align(size, c.rows), c.columns)
        self.score_panels = self.key_words // c.columns
        self.sums = None if self.fixed else sums
        block_words = 2 * self.panels * self.key_words + self.out_panels * align(size, c.rows)
        self.plan = self.planned(self.score_panels, block_words)
        self.scale = Params.of_all(context, Memory.PARAM1, op.second)
        self.keys = Shared(context.weight)

    def planned(self, score_panels: int, block_words: int) -> CachedPlan:
        """Sizes, for so many panels of scores and weight words of a block."""
        context = self.context
        return plan_cached_attention(
            self.c,
            self.tokens,
            self.sharing,
            self.op.kv_heads,
            score_panels,
            self.out_panels,
            block_words=block_words,
            accumulator_words=self.c.accumulator_words - (self.sums.words if self.sums else 0),
            activation_free=context.activation.largest_gap,
            weight_free=context.weight.largest_gap,
            caution=context.caution,
        )

    def jobs(self) -> list[Job]:
        plan, jobs = self.plan, []
        for kv_head in range(self.op.kv_heads):
            for start in range(0, self.tokens, plan.tokens):
                tokens = min(plan.tokens, self.tokens - start)
                for head in range(0, self.sharing, plan.heads):
                    jobs.append(Job(len(jobs), kv_head, head, plan.heads, start, tokens))
        return jobs

    def condition(self, job: Job, block: int) -> Mapping[str, int]:
        """Fields that cut the keys behind each row, and drop a block without any."""
        start, size = self.blocks[block]
        if self.fixed:
            return {"limit": size}
        fields = {"limit": 1 - start + job.start, "causal": 1, "register": self.register}
        if job.heads > 1:
            fields["period"] = job.tokens
        return fields if start == 0 else fields | {"predicate": self.register}

    def trim(self, block: int) -> dict[str, int]:
        """The field with which a product leaves out what no row sees of a block."""
        moves = not self.fixed and self.blocks[block][0]
        return {"trim": 1} if self.c.trims and moves else {}

    def load_condition(self, job: Job, block: int) -> Mapping[str, int]:
        """The same for the loads of the block."""
        start = self.blocks[block][0]
        if start == 0 or self.fixed:
            return {}
        return {"limit": job.start + job.tokens - start, "predicate": self.register}

    def key_of(self, kind: str, job: Job, block: int) -> Hashable:
        return kind, job.number // self.plan.lanes, job.kv_head, job.start, block

    def key_block(self, job: Job, block: int, kind: str) -> tuple[int, int]:
        """Address of the high bytes' words of a key block; its low bytes follow; their distance.
        kind: of `kinds`."""
        size = self.panels * self.key_words

        def load(address: int) -> None:
            for part in range(2):
                self.load_keys(job, block, part, address + part * size)

        return self.keys.get(self.key_of(kind, job, block), 2 * size, load), size

    def load_keys(self, job: Job, block: int, part: int, address: int) -> None:
        """LOAD the high (part 0) or low bytes of a key block."""
        load_block(
            self.context,
            self.planes[job.kv_head].planes[part],
            self.positions,
            self.panels,
            self.blocks[block],
            address,
            self.key_words,
            self.load_condition(job, block),
        )

    def value_block(self, job: Job, block: int) -> tuple[int, int]:
        """Address of the words of a block of values, and the words between panels."""
        stride = align(self.blocks[block][1], self.c.rows)

        def load(address: int) -> None:
            (plane,) = self.value_planes[job.kv_head].planes
            load_block(
                self.context,
                plane,
                self.positions,
                self.out_panels,
                self.blocks[block],
                address,
                stride,
                self.load_condition(job, block),
            )

        return self.keys.get(self.key_of("v", job, block), self.out_panels * stride, load), stride

    def query(self, job: Job) -> tuple[int, int, bool]:
        """(address, words between panels, whether to free it) of a job's query rows."""
        value = self.context.values[self.lowered.q[job.kv_head]]
        first, count = 2 * job.start, 2 * job.tokens
        if Form.A in value.chip:
            stride = value.stride
            address = value.chip[Form.A] + job.head * stride + first
            return address, self.sharing * stride, False
        address = self.context.activation.take(self.panels * job.heads * count)
        for panel in range(self.panels):
            self.context.move_panels(
                Opcode.LOAD,
                value,
                Form.A,
                (panel * self.sharing + job.head, job.heads),
                (job.start, job.tokens),
                address + panel * job.heads * count,
                count,
            )
        return address, job.heads * count, True


class CachedLane(Stream[Job]):
    """A stream of jobs over the cache."""

    def __init__(self, attention: CachedAttention):
        a = self.a = attention
        panels = a.key_words // a.c.rows
        super().__init__(a.context, a.plan.rows, a.score_panels, a.out_panels, panels)

    def run(self, jobs: list[Job]) -> Iterator[None]:
        """Emit the jobs; yields where the other streams take their turns."""
        pending: tuple[Job, int] | None = None
        for job in jobs:
            query = self.a.query(job)
            if not self.context.switches.one_pass:
                if pending is not None:
                    self._values(*pending)
                pending = None
                yield from self._maxima(job, query)
            for block in range(len(self.a.blocks)):
                if pending is not None:
                    self._values(*pending)
                self._scores(job, block, query)
                self.weigh(job, block)
                pending = (job, block)
                yield
            if query[2]:
                self.a.context.activation.give_back(query[0])
        if pending is not None:
            self._values(*pending)

    def products(self, job: Job, block: int, query: tuple[int, int, bool]) -> dict[str, int]:
        """Fields of the products with a key block."""
        a, c = self.a, self.a.c
        panels = -(-a.blocks[block][1] // c.rows)
        return {
            "rows": job.rows,
            "k_tiles": a.panels,
            "n_tiles": -(-panels * c.rows // c.columns),
            "a_address": query[0],
            "a_stride": query[1],
            "w_by_column": 1,
            "w_k_stride": a.key_words,
            "w_n_stride": c.columns,
            "acc_address": self.scores,
            "acc_stride": job.rows,
            "wide": 1,
            **a.condition(job, block),
        }

    def limit(self, block: int) -> dict[str, int]:
        """The first block's keys all stand before every row; columns behind them are padding."""
        first = {"limit": self.a.blocks[0][1], "causal": 0, "register": 0}
        return first if block == 0 and self.a.op.lead else {}

    def _maxima(self, job: Job, query: tuple[int, int, bool]) -> Iterator[None]:
        """A pass over the scores for their running maximum alone, as of an encoder's."""
        for block in range(len(self.a.blocks)):
            self._scores(job, block, query, "first k")
            self.weigh(job, block, 1)
            yield

    def _scores(self, job: Job, block: int, query: tuple[int, int, bool], kind: str = "k") -> None:
        """Scores of one key block, low bytes first."""
        a, emit = self.a, self.a.context.emitter.emit
        address, low = a.key_block(job, block, kind)
        products = self.products(job, block, query) | a.trim(block)
        emit(Opcode.GEMM, **products, w_address=address + low)
        emit(
            Opcode.GEMM,
            **(products | self.limit(block)),
            w_address=address,
            rescale=1,
            row_max=1,
            slot=self.slot,
        )
        a.keys.used(a.key_of(kind, job, block))

    def weigh(self, job: Job, block: int, groups: int = 0) -> None:
        """Softmax of the scores of a key block, or of so many groups of them."""
        a = self.a
        groups = groups or -(-a.blocks[block][1] // a.c.rows) * a.c.groups_per_row_panel
        limit = {**a.condition(job, block), **self.limit(block)}
        self.emit_softmax(job.rows, groups, self.score_shift(job), a.drop, block, limit)

    def score_shift(self, job: Job) -> int:
        first = job.kv_head * self.a.sharing + job.head
        shifts = set(self.a.op.score_shift[first : first + job.heads])
        assert len(shifts) == 1, "query heads of a job have the same score shift"
        return shifts.pop()

    def _values(self, job: Job, block: int) -> None:
        """P V of one key block, and its sums; behind the last one the division."""
        self.add_values(job, block)
        if block + 1 == len(self.a.blocks):
            self.divide(job)

    def add_values(self, job: Job, block: int) -> None:
        a = self.a
        panels, condition = -(-a.blocks[block][1] // a.c.rows), a.condition(job, block)
        words = a.value_block(job, block)
        self.emit_values(job.rows, panels, words, block, {**condition, **a.trim(block)})
        a.keys.used(a.key_of("v", job, block))
        if a.sums is not None:
            rows = (job.head * a.tokens + job.start, job.rows)
            period = {"period": job.tokens}
            a.sums.add(a.blocks[block], self.weights, rows, {**condition, **period})

    def divide(self, job: Job) -> None:
        """The result, whose words lie as those of the queries."""
        a, c, value = self.a, self.a.c, self.a.out
        first = job.kv_head * a.panels * a.sharing + job.head
        staged = Form.A not in value.chip
        if staged:
            stride = 2 * job.rows
            address = a.context.staging_pool(Form.A).take(a.panels * stride)
        else:
            stride = a.sharing * value.stride
            address = value.chip[Form.A] + first * value.stride + 2 * job.start
        a.context.emitter.emit(
            Opcode.SCALE,
            rows=job.rows,
            groups=a.panels * c.groups_per_row_panel,
            acc_address=self.output,
            acc_stride=job.rows,
            dst_memory=Memory.ACTIVATION,
            dst_address=address,
            dst_stride=stride,
            param1=a.scale.get(0, 1),
            same_param1=1,
            slot=self.slot,
            wide=1,
        )
        a.scale.done()
        if not staged:
            return
        for panel in range(a.panels):
            a.context.move_panels(
                Opcode.STORE,
                value,
                Form.A,
                (first + panel * a.sharing, job.heads),
                (job.start, job.tokens),
                address + panel * stride,
                2 * job.tokens,
            )
        a.context.staging_pool(Form.A).give_back(address)


def lower_cached_attention(context: Context, step: Step, sums: AttentionSums | None) -> None:
    """Emit one attention operation. sums: what weights of a text's keys are added to."""
    (op,) = step.ops
    assert isinstance(op, HeadsAttention)
    attention = CachedAttention(context, op, sums)
    keep_if_room([attention.scale], context.config.param_words)
    emit_jobs(attention, [CachedLane(attention) for _ in range(attention.plan.lanes)])


def emit_jobs(attention: CachedAttention, lanes: Sequence[CachedLane]) -> None:
    """Emit all jobs of an attention, by lanes that take turns."""
    jobs = attention.jobs()
    for job in jobs:
        for block in range(len(attention.blocks)):
            for kind in attention.kinds:
                attention.keys.uses[attention.key_of(kind, job, block)] += 1
    take_turns(lanes, jobs)
    attention.scale.free_all()
