"""Tile sizes of attention: query blocks, and streams that take turns."""

from __future__ import annotations

from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.isa import SELECTED
from sw.compiler.lower.tile_rows import SHARES, careful_rows
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Layout, align, even_split, tile_words

__all__ = [
    "QUERY_ROWS",
    "AttentionPlan",
    "CachedPlan",
    "key_words",
    "plan_attention",
    "plan_cached_attention",
]

QUERY_ROWS = 32
LANES = 8  # attention streams at most
LATENCY = 130  # cycles through scores, softmax and back, without their own work


@dataclass(frozen=True)
class AttentionPlan:
    """rows: query block. lanes: streams that alternate. resident: all keys of a head stay."""

    rows: int
    lanes: int
    resident: bool


@dataclass(frozen=True)
class CachedPlan:
    """tokens, heads: of a query block; all heads that share keys, or one. lanes: streams."""

    tokens: int
    heads: int
    lanes: int

    @property
    def rows(self) -> int:
        return self.tokens * self.heads


def key_words(c: AcceleratorConfig, head: Layout, keys: int) -> tuple[int, int]:
    """Weight words of a key block: K and V of one head, padded for whole tiles."""
    padded = align(keys, c.rows)
    columns = align(padded, c.columns)
    return head.head_panels * columns, head.head_columns // c.columns * padded


def plan_attention(
    c: AcceleratorConfig,
    queries: int,
    key_count: int,
    sequences: int,
    head: Layout,
    key_block: int,
    q_resident: bool,
    out_resident: bool,
    activation_free: int,
    weight_free: int,
    caution: int,
) -> AttentionPlan:
    """Sizes of the attention of one head after another, for a sequence's queries and keys.

    sequences: of queries, those of each head counted: shorter query blocks where these are fewer
    than the streams.
    caution: as of `careful_rows`; from the first level on, key blocks are loaded for each query
    block, and with less than half of the rows a single stream is left.
    """
    keys = min(key_block, key_count)
    padded = align(keys, c.rows)
    score_panels = align(padded, c.columns) // c.columns
    out_panels = head.head_columns // c.columns
    # Activation words of a query row: P, and Q and the result if they pass through.
    row_words = padded // c.rows
    passing = (0 if q_resident else 2) + (0 if out_resident else 2)
    key, value = key_words(c, head, keys)
    # Enough streams that the others' products cover one's softmax and the latencies around it.
    rows = max(min(queries, QUERY_ROWS), tile_words(c))
    step = rows * (score_panels * head.head_panels + padded // c.rows * out_panels)
    softmax = min(queries, QUERY_ROWS) * padded // c.lanes
    wanted = 1 + -(-(LATENCY + softmax * 5 // 4) // step)
    single = SHARES[caution] < SHARES[0] // 2
    for lanes in (1,) if single else range(min(max(wanted, 2), LANES), 0, -1):
        wished = min(queries, QUERY_ROWS)
        if lanes > sequences * -(-queries // wished):  # shorter blocks, one a stream
            wished = -(-queries // (lanes // sequences))
            if lanes % sequences or wished < tile_words(c):
                continue
        most = min(
            wished,
            c.accumulator_words // (lanes * (score_panels + out_panels)),
            c.row_slots // lanes,
            activation_free // (lanes * row_words + max(lanes, 2) * passing * head.head_panels),
        )
        most = careful_rows(max(0, most), caution)
        if most and (lanes == 1 or most >= min(wished, QUERY_ROWS if lanes > 2 else 4)):
            blocks = -(-key_count // keys)
            resident = blocks * (key + value) * 5 // 2 <= weight_free and caution == 0
            if not resident and key + value > weight_free:
                raise DoesNotFit(
                    f"weight memory: {weight_free} words cannot hold {keys} keys and values of "
                    f"{head.dim} features ({key + value} words)"
                )
            return AttentionPlan(even_split(queries, most)[0][1], lanes, resident)
    raise DoesNotFit(
        f"attention over {keys} keys of {head.dim} features does not fit the accumulator "
        f"({c.accumulator_words} words), activation ({activation_free} words) or row memory"
    )


def plan_cached_attention(
    c: AcceleratorConfig,
    tokens: int,
    sharing: int,
    kv_heads: int,
    score_panels: int,
    out_panels: int,
    block_words: int,
    accumulator_words: int,
    activation_free: int,
    weight_free: int,
    caution: int,
) -> CachedPlan:
    """Sizes of attention over a cache. Few tokens go together for all query heads that share keys,
    whose weights then enter the array once; head by head if that does not fit.

    block_words: weight words of a key block, keys and values. accumulator_words: that it may use.
    """
    ways = [(1, min(tokens, QUERY_ROWS))]
    if 1 < sharing and tokens * sharing <= QUERY_ROWS:
        ways.insert(0, (sharing, tokens))
    for heads, wanted in ways:
        jobs = kv_heads * (sharing // heads) * -(-tokens // wanted)
        streams = min(LANES, max(1, weight_free // block_words), jobs)
        for lanes in range(1 if SHARES[caution] < SHARES[0] // 2 else streams, 0, -1):
            most = min(
                accumulator_words // (lanes * (score_panels + out_panels)),
                (c.row_slots - 2 * SELECTED) // lanes,
                activation_free // (lanes * (score_panels * c.columns // c.rows + 8)),
            )
            rows = careful_rows(most, caution) // heads
            if rows >= (wanted if heads > 1 else 1):
                return CachedPlan(even_split(tokens, min(rows, wanted))[0][1], heads, lanes)
    raise DoesNotFit("attention over a cache does not fit the accumulator or the row state")
