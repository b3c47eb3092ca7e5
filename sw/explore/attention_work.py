"""The work of an attention operation, from the sizes that the compiler would choose."""

from __future__ import annotations

from dataclasses import dataclass

from hw.isa import COMMAND_BYTES
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.lower.context import Context, Value
from sw.compiler.lower.tile_attention import key_words, plan_attention
from sw.compiler.stream.layout import Form, even_split
from sw.compiler.stream.starts import MATRIX_LATENCY, VECTOR_LATENCY

__all__ = ["AttentionWork", "attention_work"]

GEMMS_AND_SOFTMAX, SCALE_AND_LOADS = 3, 2
"""Commands of a key block, and besides of a query block."""


@dataclass(frozen=True)
class AttentionWork:
    """Of one head of one sequence.

    array, vector: cycles. chain: cycles of its commands one behind another, with all latencies.
    bytes: of keys, values and commands; first_bytes: of the first key block. splits: query blocks
    (first row, rows). blocks: of keys. lanes: query blocks, of any head and sequence, that are
    under way together. alone: share of the shorter of array and bus that the other waits for, as
    keys have no second buffer.
    """

    array: float
    vector: float
    chain: float
    bytes: float
    first_bytes: float
    splits: list[tuple[int, int]]
    blocks: int
    lanes: int
    alone: float


def attention_work(context: Context, op: QuantAttention, out: Value) -> AttentionWork:
    """Raises `DoesNotFit`, as the plan does."""
    c = context.config
    q, k, v = (context.values[name] for name in (op.q, op.k, op.v))
    batch = context.graph.batch
    queries, keys = q.rows // batch, k.rows // batch
    head, size = out.layout, min(op.key_block, keys)
    weight_free = context.weight.largest_gap
    plan = plan_attention(
        c,
        queries,
        keys,
        batch * op.heads,
        head,
        size,
        q_resident=Form.A in q.chip,
        out_resident=Form.A in out.chip,
        activation_free=context.activation.largest_gap,
        weight_free=weight_free,
        caution=context.caution,
    )
    out_panels = head.head_columns // c.columns
    blocks = [(start, min(size, keys - start)) for start in range(0, keys, size)]
    splits = even_split(queries, plan.rows)
    key_bytes = 0 if Form.K in k.chip else head.head_panels * c.weight_pitch
    value_bytes = 0 if Form.V in v.chip else out_panels * c.weight_pitch
    array = vector = chain = moved = 0.0
    commands = 0
    for start, rows in splits:
        for first, block in blocks:
            seen = min(block, start + rows - first) if op.causal else block
            if seen <= 0:
                break
            panels = -(-seen // c.rows)
            score_tiles = -(-panels * c.rows // c.columns) * head.head_panels
            products = score_tiles * max(rows, c.columns) + panels * out_panels * max(rows, c.rows)
            softmax = rows * panels * c.groups_per_row_panel
            array += products
            vector += softmax
            chain += products + softmax + MATRIX_LATENCY + VECTOR_LATENCY
            commands += GEMMS_AND_SOFTMAX
            moved += block * (key_bytes + value_bytes)
        scale = rows * head.head_panels * c.groups_per_row_panel
        vector += scale
        chain += scale + MATRIX_LATENCY + VECTOR_LATENCY
        commands += SCALE_AND_LOADS
    if plan.resident:
        moved = keys * (key_bytes + value_bytes)
    else:
        moved /= min(plan.lanes, len(splits))
    first_bytes = blocks[0][1] * key_bytes
    alone = min(max(0.0, 2 - weight_free / sum(key_words(c, head, size))), 1.0)
    bytes_ = moved + commands * COMMAND_BYTES
    return AttentionWork(
        array, vector, chain, bytes_, first_bytes, splits, len(blocks), plan.lanes, alone
    )
