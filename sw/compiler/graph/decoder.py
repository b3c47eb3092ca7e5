"""Execute a decoder's quantised graph in integers, pass by pass: what the command stream computes.

A pass takes the next tokens of one sequence. What it leaves in the caches, and what it selects, are
the same bits whether the tokens come in one pass or in several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw.isa import MASKED_SCORE, REGISTER_BITS, SELECTED, SUM_FRACTION_BITS
from hw.numerics import Int, round_shift, saturate, scale_by_power
from hw.softmax.golden import largest_drop, row_step, weights
from hw.sparse.formats import WeightFormat
from hw.vector.golden import (
    Affine,
    activate,
    affine,
    gated,
    middle,
    norm_row,
    reciprocal_row,
    rotated,
    selected,
    to_bytes,
)
from sw.compiler.errors import InputError
from sw.compiler.graph.operations import (
    Memory,
    QuantCachedAttention,
    QuantElementwise,
    QuantGated,
    QuantGraph,
    QuantHead,
    QuantHeadNorm,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOp,
)
from sw.compiler.graph.pruning import Judge
from sw.compiler.graph.scaled import scaled_product
from sw.compiler.graph.window import KeySlots

__all__ = [
    "HEAD_BLOCK",
    "VALUE_FRACTION_BITS",
    "HeadBlock",
    "Pass",
    "Selection",
    "SequenceState",
    "attention_shift",
    "head_blocks",
    "head_order",
    "key_blocks",
    "memory_integers",
    "new_state",
    "run_pass",
]

VALUE_FRACTION_BITS = 14
"""Selected values are logits in octaves with so many fraction bits."""

HEAD_BLOCK = 32
"""Outputs of a head that are summed up together, all with the same shift."""

LARGEST_WEIGHT = 255
"""Of softmax."""

Values = dict[str, Int]


# --- blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadBlock:
    """Outputs of a head: `tokens` (rows of its weight), whose machine indices follow `base`."""

    tokens: np.ndarray
    shift: int
    base: int


def head_blocks(op: QuantHead) -> list[HeadBlock]:
    """The outputs of a head by shift, then by number, in blocks of at most `HEAD_BLOCK`."""
    blocks: list[HeadBlock] = []
    for shift in np.unique(op.shift[op.shift > 0]):
        tokens = np.flatnonzero(op.shift == shift)
        for start in range(0, len(tokens), HEAD_BLOCK):
            part = tokens[start : start + HEAD_BLOCK]
            blocks.append(HeadBlock(part, int(shift), len(blocks) * HEAD_BLOCK))
    return blocks


def head_order(op: QuantHead) -> np.ndarray:
    """Token of each machine index; -1: none."""
    blocks = head_blocks(op)
    order = np.full(len(blocks) * HEAD_BLOCK, -1)
    for block in blocks:
        order[block.base : block.base + len(block.tokens)] = block.tokens
    return order


def key_blocks(op: QuantCachedAttention, keys: int) -> list[tuple[int, int]]:
    """Key blocks (start, size) that hold `keys` keys; each of full size, but for the last one of a
    memory, of which there are never more."""
    blocks = [(0, op.lead)] if op.lead else []
    start = op.lead
    while start < keys:
        size = op.key_block if op.k is not None else min(op.key_block, keys - start)
        blocks.append((start, size))
        start += op.key_block
    return blocks


# --- state and results ----------------------------------------------------------------------------


@dataclass
class SequenceState:
    """One sequence: `position` tokens, their keys (INT16) and values (INT8) by cache; and those of
    its memories, zeros until `remember`. key_slots: where its keys are. dropped: key blocks that
    its passes left out, of `blocks` of each key/value head that they could have read (pruning.py).
    """

    position: int
    key_slots: KeySlots
    keys: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: int = 0
    dropped: int = 0

    def remember(self, cache: str, keys: np.ndarray, values: np.ndarray) -> None:
        """Take the integers of a memory, see `memory_integers`."""
        self.keys[cache], self.values[cache] = keys, values


def memory_integers(
    memory: Memory, keys: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """INT16 keys and INT8 values of real ones [rows, kv_heads*dim]."""
    if keys.shape != values.shape or keys.shape != (memory.rows, len(memory.key_unit)):
        raise InputError(
            f"keys and values of a memory are [{memory.rows}, {len(memory.key_unit)}], got "
            f"{list(keys.shape)} and {list(values.shape)}"
        )
    scaled = np.rint(keys / memory.key_unit).astype(np.int64)
    low = np.rint((values - memory.value_centre) / memory.value_unit).astype(np.int64)
    return _narrow(scaled, 16).astype(np.int16), saturate(low, 8).astype(np.int8)


def new_state(graph: QuantGraph) -> SequenceState:
    """A sequence that holds the graph's prefix."""
    decoder = graph.decoder
    assert decoder is not None
    state = SequenceState(len(decoder.prefix), KeySlots(decoder))
    for name, cache in decoder.caches.items():
        features = cache.kv_heads * cache.dim
        keys = state.keys[name] = np.zeros((decoder.keys_of(name), features), np.int16)
        values = state.values[name] = np.zeros((decoder.keys_of(name), features), np.int8)
        keys[: len(cache.keys)], values[: len(cache.values)] = cache.keys, cache.values
    return state


@dataclass(frozen=True)
class Selection:
    """The largest outputs of each row.

    values: [rows, 8] in units of 2^-14 octaves, falling. indices: machine indices, which
    `head_order` turns into tokens. octave, total: [rows, 2], of blocks with even and odd numbers:
    the sum of their outputs' powers of 2 is `total * 2^(octave - 25)`, but for a factor of 255/256.
    """

    values: Int
    indices: Int
    octave: Int
    total: Int

    def log_probabilities(self) -> np.ndarray:
        """Natural logarithms of the selected outputs' probabilities, [rows, 8]."""
        octaves = self.values / 2**VALUE_FRACTION_BITS
        sums = self.octave + np.log2(np.maximum(self.total, 2.0**-99)) - SUM_FRACTION_BITS
        total = np.logaddexp2(sums[:, 0], sums[:, 1]) + math.log2(256 / 255)
        return (octaves - total[:, None]) * math.log(2)


# --- operations -----------------------------------------------------------------------------------


def _product(x: Int, weight: np.ndarray) -> Int:
    """`x @ weight.T` of 16-bit and 8-bit integers: sums below 2^53 are exact."""
    return (x.astype(np.float64) @ weight.T.astype(np.float64, copy=False)).astype(np.int64)


def _scores(q: Int, keys: Int) -> Int:
    """`q @ keys`, exactly."""
    return (q.astype(np.float64) @ keys.astype(np.float64)).astype(np.int64)


def _narrow(values: Int, bits: int) -> Int:
    if bits == 8:
        return saturate(values, 8)
    high, low = to_bytes(values)
    return 256 * high + low


def _by_row(p: Affine) -> Affine:
    return Affine(p.mul[..., None], p.offset[..., None], p.shift[..., None])


def attention_shift(graph: QuantGraph) -> int:
    """Places by which sums of softmax weights over all layers and key/value heads are shifted
    right, so that they have 16 bits."""
    heads = sum(op.kv_heads for op in graph.ops if isinstance(op, QuantCachedAttention) and op.k)
    return max(0, (LARGEST_WEIGHT * heads).bit_length() - 15)


class Pass:
    """One pass, operation by operation: `values` by name, and what heads select and sum up.
    weights: of each query head of those that share keys, token and slot, summed up over all
    layers and key/value heads, if attention counts.

    alike: each token is one of a pass of its own, where that makes a difference (pruning.py).
    """

    def __init__(
        self, graph: QuantGraph, state: SequenceState, ids: np.ndarray, *, alike: bool = False
    ):
        assert graph.decoder is not None
        self.prunes = graph.decoder.octaves > 0 and (alike or len(ids) == 1)
        self.graph, self.decoder, self.state, self.ids = graph, graph.decoder, state, ids
        self.positions = state.position + np.arange(len(ids))
        self.values: Values = {}
        self.selections: dict[str, Selection] = {}
        self.sums: dict[str, Int] = {}
        self.weights: Int | None = None

    def _bits(self, name: str) -> int:
        return self.graph.tensors[name].bits

    def embed(self, op: QuantInput) -> None:
        total = np.zeros((len(self.ids), op.tables[0].shape[1]), np.int64)
        for table, index in zip(op.tables, op.source, strict=True):
            chosen = self.ids if isinstance(index, str) else index[self.positions]
            total += table[chosen]
        if op.constant is not None:
            total += op.constant[self.positions]
        self.values[op.out] = saturate(total, self._bits(op.out))

    def linear(self, op: QuantLinear) -> None:
        sums = self._product(op.x, op.weight, op.format, op.multipliers)
        self._finish(middle(sums, op.first), op)

    def _product(
        self, x: str, weight: np.ndarray, format: WeightFormat, multipliers: np.ndarray | None
    ) -> Int:
        if not format.scaled:
            return _product(self.values[x], weight)
        assert multipliers is not None
        wide = self._bits(x) == 16
        return scaled_product(self.values[x], weight, format, multipliers, wide)

    def elementwise(self, op: QuantElementwise) -> None:
        self._finish(middle(self.values[op.x], op.first), op)

    def _finish(self, h: Int, op: QuantLinear | QuantElementwise) -> None:
        h = activate(h, op.function)
        if isinstance(op, QuantLinear) and op.residual is not None:
            residual = round_shift(self.values[op.residual], op.residual_shift)
            h = saturate(saturate(h, 16) + residual, 16)
        if op.out16 is not None:
            self.values[op.out16] = saturate(h, 16)
        if op.out8 is None:
            return
        if isinstance(op, QuantLinear) and op.angles is not None:
            result = self._turned(h, op)
        else:
            result = h if op.second is None else affine(h, op.second)
        self.values[op.out8] = _narrow(result, self._bits(op.out8))

    def _turned(self, h: Int, op: QuantLinear | QuantHeadNorm) -> Int:
        assert op.angles is not None and op.second is not None
        table = self.decoder.angles[op.angles][self.positions].astype(np.int64)
        return rotated(h, np.tile(table, h.shape[1] // table.shape[1]), op.second)

    def gated(self, op: QuantGated) -> None:
        gate = self._product(op.x, op.gate, op.format, op.gate_multipliers)
        gate = activate(middle(gate, op.gate_first), op.function)
        up = middle(self._product(op.x, op.up, op.format, op.up_multipliers), op.up_first)
        self.values[op.out8] = _narrow(gated(gate, up, op.second), self._bits(op.out8))

    def norm(self, op: QuantNorm) -> None:
        x = self.values[op.x]
        total = np.zeros(len(x), np.int64) if op.rms else x.sum(axis=1)
        z = middle(x, _by_row(norm_row(total, (x * x).sum(axis=1), op.features, op.epsilon)))
        if op.out16 is not None:
            assert op.to16 is not None
            self.values[op.out16] = saturate(affine(z, op.to16), 16)
        if op.out8 is not None:
            assert op.to8 is not None
            self.values[op.out8] = _narrow(affine(z, op.to8), self._bits(op.out8))

    def head_norm(self, op: QuantHeadNorm) -> None:
        x = self.values[op.x].reshape(len(self.ids), -1, op.features)
        total = np.zeros(x.shape[:2], np.int64) if op.rms else x.sum(axis=2)
        epsilon, squares = np.array(op.epsilon, np.int64), (x * x).sum(axis=2)
        p = norm_row(total, squares, op.features, epsilon)  # pyright: ignore
        z = middle(x, _by_row(p)).reshape(len(x), -1)
        h = _narrow(affine(z, op.gain), 16)
        self.values[op.out8] = h if op.angles is None else _narrow(self._turned(h, op), 16)

    def attention(self, op: QuantCachedAttention) -> None:
        """Online softmax over the key blocks, rows [kv heads, queries of one, tokens]."""
        tokens, end = len(self.ids), self.decoder.keys_of(op.cache)
        keys, values = self.state.keys[op.cache], self.state.values[op.cache]
        drop, last = largest_drop(end), np.full(tokens, end - 1)
        if op.k is not None and op.v is not None:
            slots = [self.state.key_slots.of(int(position)) for position in self.positions]
            keys[slots], values[slots] = self.values[op.k], self.values[op.v]
            last, end = self.positions, min(int(self.positions[-1]) + 1, end)
        shape = (tokens, op.kv_heads, op.heads // op.kv_heads, -1)
        q = self.values[op.q].reshape(shape).transpose(1, 2, 0, 3)
        groups, dim = q.shape[1], q.shape[3]
        shift = np.array(op.score_shift, np.int64).reshape(op.kv_heads, groups, 1)
        octave = largest = total = np.zeros(q.shape[:3], np.int64)
        output = np.zeros(q.shape, np.int64)
        counts = self._counts(groups) if op.k is not None else None
        blocks, judge = key_blocks(op, end), None
        if self.prunes and op.k is not None:
            blocks[1:] = blocks[:0:-1]  # the newest ones first, which count most
            judge = Judge(self.decoder.octaves, shift, octave, octave)
        for start, size in blocks:
            block = slice(start, min(start + size, end))

            def rows_of(cache: np.ndarray, block: slice = block) -> Int:
                rows = cache[block].astype(np.int64).reshape(-1, op.kv_heads, 1, dim)
                return rows.transpose(1, 2, 3, 0)

            high, low = to_bytes(rows_of(keys))
            scores = _scores(q, high)
            valid = np.broadcast_to(np.arange(start, block.stop) <= last[:, None], scores.shape)
            stays: np.ndarray | None = None
            if judge is not None:
                seen = valid.any(axis=(1, 3))
                stays = judge.stays(np.where(valid, scores, MASKED_SCORE).max(axis=-1), start == 0)
                self.state.blocks += int(seen.sum())
                self.state.dropped += int((seen & ~stays[:, 0]).sum())
            tile = dim if judge is None else self.decoder.tile
            for begin in range(0, dim, tile):
                inputs = slice(begin, begin + tile)
                scores += round_shift(_scores(q[..., inputs], low[..., inputs, :]), 8)
            top = np.where(valid, scores, MASKED_SCORE).max(axis=-1)
            before = octave, largest, total, output
            octave, largest, rescale = row_step(top, octave, largest, start == 0, shift, drop)
            p, fine = weights(scores, octave[..., None], shift[..., None], valid)  # pyright: ignore
            if counts is not None:
                counts[..., block] += p.sum(axis=0)
            part = p.astype(np.float64) @ rows_of(values).swapaxes(-1, -2).astype(np.float64)
            part = part.astype(np.int64)
            if start == 0:
                total, output = fine.sum(axis=-1), part
            else:
                total = scale_by_power(total, rescale) + fine.sum(axis=-1)
                output = scale_by_power(output, rescale[..., None]) + part
            if stays is not None and not stays.all():
                found = octave, largest, total, output
                octave, largest, total = map(np.where, [stays] * 3, found[:3], before[:3])
                output = np.where(stays[..., None], output, before[3])
        h = middle(output, _by_row(reciprocal_row(total)))
        h = h.transpose(2, 0, 1, 3).reshape(tokens, -1)
        self.values[op.out8] = _narrow(affine(h, op.second), self._bits(op.out8))

    def _counts(self, heads: int) -> Int | None:
        """Where the weights of so many query heads that share keys are summed up, if they are."""
        if int(self.positions[-1]) < self.decoder.counted_from:
            return None
        if self.weights is None:
            self.weights = np.zeros((heads, len(self.ids), self.decoder.slots), np.int64)
        return self.weights

    def head(self, op: QuantHead) -> None:
        sums = self.sums[op.out] = _product(self.values[op.x], op.weight)
        rows = len(sums)
        best = np.full((rows, SELECTED, 2), MASKED_SCORE, np.int64)
        best[..., 1] = (1 << REGISTER_BITS) - 1
        octave, largest, total = np.zeros((3, 2, rows), np.int64)
        for number, block in enumerate(head_blocks(op)):
            turn, first = number % 2, number < 2
            scores, shift = sums[:, block.tokens], block.shift - 8
            octave[turn], largest[turn], rescale = row_step(
                scores.max(axis=1), octave[turn], largest[turn], first, shift, 0
            )
            valid = np.ones(scores.shape, bool)
            _, fine = weights(scores, octave[turn][:, None], shift, valid)  # pyright: ignore
            before = 0 if first else scale_by_power(total[turn], rescale)
            total[turn] = before + fine.sum(axis=1)
            best = selected(
                best, round_shift(scores, block.shift - VALUE_FRACTION_BITS), block.base
            )
        self.selections[op.out] = Selection(best[..., 0], best[..., 1], octave.T, total.T)

    def execute(self, op: QuantOp) -> None:
        """Execute one operation; `values` has what it reads."""
        if isinstance(op, QuantInput):
            self.embed(op)
        elif isinstance(op, QuantLinear):
            self.linear(op)
        elif isinstance(op, QuantElementwise):
            self.elementwise(op)
        elif isinstance(op, QuantGated):
            self.gated(op)
        elif isinstance(op, QuantNorm):
            self.norm(op)
        elif isinstance(op, QuantHeadNorm):
            self.head_norm(op)
        elif isinstance(op, QuantCachedAttention):
            self.attention(op)
        elif isinstance(op, QuantHead):
            self.head(op)
        else:
            raise TypeError(f"a decoder has no {type(op).__name__}")


def check_tokens(
    ids: Sequence[int] | np.ndarray, vocabulary: int, position: int, context: int
) -> np.ndarray:
    """Token numbers of a pass. Raises `InputError`."""
    tokens = np.asarray(ids)
    if tokens.ndim != 1 or not len(tokens) or tokens.dtype.kind not in "iu":
        raise InputError(f"a pass takes a list of token numbers, got {ids!r}")
    wrong = (tokens < 0) | (tokens >= vocabulary)
    if wrong.any():
        raise InputError(f"token {int(tokens[wrong][0])} is outside 0..{vocabulary - 1}")
    if position + len(tokens) > context:
        raise InputError(
            f"{len(tokens)} tokens behind {position} are more than the context of {context}"
        )
    return tokens.astype(np.int64)


def run_pass(
    graph: QuantGraph,
    state: SequenceState,
    ids: Sequence[int] | np.ndarray,
    *,
    alike: bool = False,
) -> tuple[Selection, np.ndarray]:
    """The next tokens of a sequence, whose state moves on: what the head selects, and all logits.

    alike: see `Pass`. Logits are in octaves (multiply by ln 2), float64 [rows, vocabulary].
    """
    assert graph.decoder is not None
    table = next(op for op in graph.ops if isinstance(op, QuantInput)).tables[0]
    tokens = check_tokens(ids, len(table), state.position, graph.decoder.context)
    if len(tokens) > 1 and state.position + len(tokens) > graph.decoder.slots:
        raise InputError(f"a pass of {len(tokens)} tokens does not end inside the window")
    work = Pass(graph, state, tokens, alike=alike)
    for op in graph.ops:
        work.execute(op)
    if work.weights is not None:
        weights = round_shift(work.weights, attention_shift(graph))
        state.key_slots.take(state.position, weights.sum(axis=0))
    state.position += len(work.ids)
    head = next(op for op in graph.ops if isinstance(op, QuantHead))
    logits = np.where(head.shift > 0, work.sums[head.out] * 2.0**-head.shift, -np.inf)
    return work.selections[head.out], logits


def passes(tokens: int, sizes: Sequence[int]) -> Iterator[int]:
    """Sizes of passes for so many tokens, the largest first; `sizes` holds 1."""
    for size in sorted(sizes, reverse=True):
        while tokens >= size:
            yield size
            tokens -= size
