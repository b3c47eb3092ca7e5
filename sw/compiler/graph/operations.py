"""The two graphs of the compiler: float, as the front end reads it, and quantised, fused.

Both are lists of operations in execution order; values are named, and defined exactly once.
Every activation is a matrix of `rows` x `features`: rows are `batch * tokens`, sequence by
sequence. Only tensors that say so have another number of tokens: the keys of cross-attention. The
quantised graph is complete: with `hw/isa.py` it defines every bit of the result
(`sw/compiler/graph/reference.py` executes it; the command stream must give the same).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from hw.isa import Function
from hw.sparse.formats import DENSE, KEPT, QUAD, WeightFormat
from hw.vector.golden import Affine
from sw.compiler.graph.host import HostGraph
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.rows import Rows

__all__ = [
    "Cache",
    "DecoderState",
    "FloatActivation",
    "FloatAdd",
    "FloatAttention",
    "FloatEmbedding",
    "FloatGraph",
    "FloatInput",
    "FloatLayerNorm",
    "FloatLinear",
    "FloatMultiply",
    "FloatOp",
    "FloatQuantise",
    "FloatRotate",
    "QuantAttention",
    "QuantCachedAttention",
    "QuantElementwise",
    "QuantGated",
    "QuantGraph",
    "QuantHead",
    "QuantInput",
    "QuantLinear",
    "QuantNorm",
    "QuantOp",
    "QuantOutput",
    "Tensor",
    "low_stage",
    "operands",
    "smallest",
]


# --- float graph ------------------------------------------------------------------------------


@dataclass(frozen=True)
class FloatEmbedding:
    """`sum_i table_i[index_i] + constant`; an index is an input's name or fixed positions.

    `constant` has shape [tokens, features] (position embeddings, biases) or is None. With no
    tables and a float input this is `input + constant`.
    """

    name: str
    tables: tuple[np.ndarray, ...]
    indices: tuple[str | np.ndarray, ...]
    constant: np.ndarray | None = None
    source: str | None = None
    place: str = ""


@dataclass(frozen=True)
class FloatLinear:
    """`x @ weight.T + bias`; weight [N, K].

    steps: of weights that are quantised already: weight = steps * INT8, [N]; may be negative.
    """

    name: str
    x: str
    weight: np.ndarray
    bias: np.ndarray | None
    place: str = ""
    steps: np.ndarray | None = None


@dataclass(frozen=True)
class FloatQuantise:
    """The nearest `scale * (integer - zero)`: levels that an activation was trained with.

    Integers are -128 .. highest; in the accelerator INT8, so with a smaller `highest` values above
    saturate later than in training.
    """

    name: str
    x: str
    scale: float
    zero: int
    highest: int = 127
    place: str = ""


@dataclass(frozen=True)
class FloatLayerNorm:
    """Over the features of each row; rms: root mean square norm, without mean and bias.

    heads > 0: over the features of each of so many heads, with a gain for the features of one.
    """

    name: str
    x: str
    gain: np.ndarray
    bias: np.ndarray
    epsilon: float
    place: str = ""
    rms: bool = False
    heads: int = 0


@dataclass(frozen=True)
class FloatActivation:
    """ReLU, GELU or SiLU."""

    name: str
    x: str
    function: Function
    place: str = ""


@dataclass(frozen=True)
class FloatAdd:
    """`x + y`, same shape."""

    name: str
    x: str
    y: str
    place: str = ""


@dataclass(frozen=True)
class FloatMultiply:
    """`x * y`, same shape."""

    name: str
    x: str
    y: str
    place: str = ""


@dataclass(frozen=True)
class FloatRotate:
    """Rotary position embedding: pairs of features of a head turn by an angle of their position.

    pairs: [n, 2], places (a, b) within a head; others stay. cosine, sine: [positions, n], at least
    as many positions as the graph has tokens: `a' = a cos - b sin`, `b' = b cos + a sin`.
    """

    name: str
    x: str
    heads: int
    pairs: np.ndarray
    cosine: np.ndarray
    sine: np.ndarray
    place: str = ""


@dataclass(frozen=True)
class FloatAttention:
    """`softmax(q k^T * scale + bias + mask) v` for each head.

    q, k, v: [batch*tokens, heads*dim]. kv_heads > 0: k and v have so many heads, each for
    heads / kv_heads of q's that follow each other. bias: constant [heads or 1, tokens of q, tokens
    of k] or None; shorter sequences take its first rows and columns. memory: the input that k and v
    come from, if that is not the one of q; each sequence sees all rows of its own.
    """

    name: str
    q: str
    k: str
    v: str
    heads: int
    scale: float
    causal: bool = False
    mask: str | None = None
    place: str = ""
    bias: np.ndarray | None = None
    kv_heads: int = 0
    memory: str = ""


FloatOp = (
    FloatInput
    | FloatEmbedding
    | FloatLinear
    | FloatLayerNorm
    | FloatActivation
    | FloatAdd
    | FloatMultiply
    | FloatRotate
    | FloatAttention
    | FloatQuantise
)


def operands(op: FloatOp) -> tuple[str, ...]:
    """Names of the values an operation reads."""
    if isinstance(op, FloatInput):
        return ()
    if isinstance(op, FloatEmbedding):
        names = tuple(index for index in op.indices if isinstance(index, str))
        return names + ((op.source,) if op.source else ())
    if isinstance(op, FloatAttention):
        return (op.q, op.k, op.v) + ((op.mask,) if op.mask else ())
    if isinstance(op, FloatAdd | FloatMultiply):
        return (op.x, op.y)
    return (op.x,)


@dataclass
class FloatGraph:
    """`batch` sequences of `tokens` rows each; `outputs` name values and their final shapes.

    host: what the host computes before and after, or None.
    """

    batch: int
    tokens: int
    ops: list[FloatOp] = field(default_factory=list)
    outputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    host: HostGraph | None = None

    @property
    def inputs(self) -> list[FloatInput]:
        """The module's inputs, in call order."""
        feeds = {item.name for item in self.host.feeds} if self.host else set()
        return [op for op in self.ops if isinstance(op, FloatInput) and op.name not in feeds]


# --- quantised graph --------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """An integer value: INT8 activation or INT16 residual stream.

    real value = scale * integer + centre, both per feature for INT8 ([features]) and one
    scalar scale with centre 0 for INT16. Lowering needs only `bits` and `features`.
    heads > 0: features are `heads` groups (Q, K or V), which lowering may pad one by one.
    tokens: rows of each sequence, 0 for as many as the graph has.
    """

    name: str
    bits: int
    features: int
    scale: np.ndarray
    centre: np.ndarray
    heads: int = 0
    tokens: int = 0


def smallest(array: np.ndarray) -> np.ndarray:
    """INT64 arrays of small values take the least bytes that hold them."""
    if array.dtype != np.int64 or array.size == 0:
        return array
    for kind in (np.int8, np.int16, np.int32):
        bounds = np.iinfo(kind)
        if bounds.min <= array.min() and array.max() <= bounds.max:
            return array.astype(kind)
    return array


@dataclass(frozen=True)
class QuantInput:
    """What the host computes, in integers, before the program starts.

    kind "embedding": out = saturate16(sum_i tables[i][index_i] + constant), tables of INT16 values;
    kind "float": out = saturate(rint((x - centre) / scale)) of a float input (+ constant, INT16
    units), kind "mask": key mask, batch x tokens.
    """

    out: str
    kind: str
    source: tuple[str | np.ndarray, ...]
    tables: tuple[np.ndarray, ...] = ()
    constant: np.ndarray | None = None

    def __post_init__(self):
        # They are by far the largest arrays beside the weights.
        object.__setattr__(self, "tables", tuple(map(smallest, self.tables)))


def low_stage(second: Affine) -> Affine:
    """The stage that gives the 16-bit integers of which `second` gives the high bytes, rounded."""
    shift = second.shift - 8
    return Affine(second.mul, second.offset - (np.int64(128) << shift), shift)


@dataclass(frozen=True)
class QuantLinear:
    """GEMM + VECTOR. `h = function(sat18(affine(x @ weight.T, first)))`, then

    with `residual`: h = sat16(sat16(h) + round(residual, residual_shift));
    out16 = sat16(h); out8 = sat8(affine(h, second)), or sat8(h) when `second` is None;
    low8 = the low 8 bits, signed, of affine(h, low_stage(second)): 256 out8 + low8 is that value
    where it does not saturate. Only without `residual` and beside `out8` and `second`.
    weight: INT8 [N, K]. `first`, `second`: [N]. The last `copied_outputs` of N and
    `copied_inputs` of K are copies of channels, made for precision; they are not useful work.
    format: how the weights are stored; `multipliers`: of INT4 groups, see `hw/sparse/formats.py`.
    Of scaled ones, `x @ weight.T` is what `scaled_product` says.
    angles: name of a table of the graph, or None: features 2j and 2j+1 of each head, as wide as the
    table, turn by the angle of their position in place of the second stage (`second` without
    `mul`, see `hw.vector.golden.rotated`).
    x and out8 have 16 bits if their tensors say so; out8 then saturates as `to_bytes` does.
    """

    x: str
    weight: np.ndarray
    first: Affine
    function: Function = Function.NONE
    residual: str | None = None
    residual_shift: int = 0
    second: Affine | None = None
    out16: str | None = None
    out8: str | None = None
    low8: str | None = None
    place: str = ""
    copied_outputs: int = 0
    copied_inputs: int = 0
    format: WeightFormat = DENSE
    multipliers: np.ndarray | None = None
    angles: str | None = None

    @property
    def useful_macs_per_row(self) -> int:
        """Multiply-accumulates without copies; of 2:4 weights those that are kept."""
        outputs, inputs = self.weight.shape
        inputs -= self.copied_inputs
        if self.format.sparse:
            inputs = inputs // QUAD * KEPT + min(inputs % QUAD, KEPT)
        return (outputs - self.copied_outputs) * inputs


@dataclass(frozen=True)
class QuantElementwise:
    """VECTOR from residual memory: as `QuantLinear` with the INT16 value in place of the sum."""

    x: str
    first: Affine
    function: Function = Function.NONE
    second: Affine | None = None
    out16: str | None = None
    out8: str | None = None
    low8: str | None = None
    place: str = ""


@dataclass(frozen=True)
class QuantNorm:
    """NORM of an INT16 value; `to16` and `to8` map z (2^-12) to the two results. rms: without the
    mean."""

    x: str
    features: int
    epsilon: int
    to16: Affine | None = None
    to8: Affine | None = None
    out16: str | None = None
    out8: str | None = None
    place: str = ""
    rms: bool = False


@dataclass(frozen=True)
class QuantHeadNorm:
    """A norm of each head of an INT16 value by itself, then its rotation: what queries and keys may
    have between their linear and the attention.

    A head's `features` become `y = satW(affine(z, gain))`, z as in `QuantNorm`; out8, of 16 bits,
    is y, or with `angles` y turned as in `QuantLinear`. epsilon: one per head. gain:
    [heads*features].
    """

    x: str
    features: int
    epsilon: tuple[int, ...]
    gain: Affine
    out8: str
    angles: str | None = None
    second: Affine | None = None
    place: str = ""
    rms: bool = True


@dataclass(frozen=True)
class QuantGated:
    """Two linears of the same input, one the gate of the other: with `g = function(sat18(affine(x @
    gate.T, gate_first)))` and `u = sat16(sat18(affine(x @ up.T, up_first)))`,

    out8 = sat((g * u + second.offset) >> second.shift), of 16 bits if its tensor says so.
    gate, up: INT8 [N, K]. gate_first, up_first: [N]. second: [1] or [N], without `mul`.
    format, gate_multipliers, up_multipliers: as of `QuantLinear`, of both.
    """

    x: str
    gate: np.ndarray
    up: np.ndarray
    gate_first: Affine
    up_first: Affine
    second: Affine
    out8: str
    function: Function = Function.SILU
    place: str = ""
    format: WeightFormat = DENSE
    gate_multipliers: np.ndarray | None = None
    up_multipliers: np.ndarray | None = None


@dataclass(frozen=True)
class QuantCachedAttention:
    """Causal attention of the tokens of a pass over all up to each of them, kept in a cache.

    q: 16 bits [tokens, heads*dim]. k: 16 bits, v: INT8, [tokens, kv_heads*dim]; query head h meets
    head `h // (heads / kv_heads)` of them. They are appended to `cache` at the pass' position
    first. Of a cache with a `Memory` they are none, and every token sees all of the memory.
    With the two signed bytes of k (`hw.vector.golden.to_bytes`), scores are `sum(q * high)
    + round(sum(q * low), 8)`: units of k are 256 times coarser in a score. score_shift: one per
    head. second: [1] or [heads*dim], from units of 2^-9 of v's integers, to 16 bits.

    Key blocks: the first has `lead` keys, the others `key_block`, from position 0 on, whatever the
    pass; so rows do not depend on the number of tokens of a pass.
    """

    q: str
    k: str | None
    v: str | None
    cache: str
    heads: int
    kv_heads: int
    score_shift: tuple[int, ...]
    second: Affine
    out8: str
    lead: int = 1
    key_block: int = 64
    place: str = ""


@dataclass(frozen=True)
class QuantHead:
    """The last linear of a language model: the 8 largest outputs of each row, and log-sum-exp.

    weight: INT8 [N, K]. shift: [N], `acc * 2^-shift` is in octaves (log2): 14 or more, as values
    have units of 2^-14 octaves; 0: the output is left out, as if its logit were minus infinity.
    out: names the result, see `Selection` in `decoder.py`.
    """

    x: str
    weight: np.ndarray
    shift: np.ndarray
    out: str
    place: str = ""


@dataclass(frozen=True)
class QuantAttention:
    """GEMM, SOFTMAX, GEMM over key blocks of `key_block` keys from key 0, then SCALE.

    q, k, v: INT8 [batch*tokens, heads*dim], k and v maybe of other tokens than q (not if causal);
    score_shift: one per head; `second`: [heads*dim], from units of 2^-9 of v's integers. mask:
    name of a "mask" input over the keys, or None. bias: INT16 [heads, tokens of q, tokens of k] or
    None; `bias << score_shift` is added to the scores (`score_bias.py`).
    """

    q: str
    k: str
    v: str
    heads: int
    score_shift: tuple[int, ...]
    second: Affine
    out8: str
    causal: bool = False
    mask: str | None = None
    key_block: int = 64
    place: str = ""
    bias: np.ndarray | None = None


@dataclass(frozen=True)
class QuantOutput:
    """A module output: `Tensor` by name, given back as float in this shape."""

    name: str
    shape: tuple[int, ...]


QuantOp = (
    QuantInput
    | QuantLinear
    | QuantElementwise
    | QuantNorm
    | QuantHeadNorm
    | QuantAttention
    | QuantGated
    | QuantCachedAttention
    | QuantHead
)


@dataclass(frozen=True)
class Memory:
    """Keys and values of something else than the text, that a sequence has from its beginning on
    and that never change: of what was heard, say.

    rows: how many. key_unit, value_unit, value_centre: [kv_heads*dim], real values of the integers
    1, and of a value's 0.
    """

    rows: int
    key_unit: np.ndarray
    value_unit: np.ndarray
    value_centre: np.ndarray


@dataclass(frozen=True)
class Cache:
    """Keys and values that stay from pass to pass, and those of the prefix with which every
    sequence begins.

    kv_heads, dim: of both. keys: INT16, values: INT8, [prefix tokens, kv_heads*dim]. memory: what
    it holds instead, if it does not grow with the text.
    """

    kv_heads: int
    dim: int
    keys: np.ndarray
    values: np.ndarray
    memory: Memory | None = None


COUNTED = 128
"""Tokens in front of a full cache from which on the attention to each key counts. What came
before would count less than 8%; so most of a prompt is read in large passes."""


@dataclass
class DecoderState:
    """What makes a graph a decoder: a sequence grows by `tokens` with each pass.

    context: positions that a sequence may have. prefix: token numbers at positions 0.. with which
    every sequence begins, never computed on the accelerator. caches: by name. angles: INT16
    [context, dim] by name, cosine and sine of each pair next to each other. window: 0, or keys that
    stay in a cache: those of the first `sink` positions and of the last ones (`with_window`).
    recent: 0, or those of least attention go first, but for so many last ones.
    octaves: 0, or how far below the largest score so far a key block still counts in passes of one
    token (`with_pruning`), tile: inputs whose sums with the keys' low bytes are rounded together.
    """

    context: int
    prefix: tuple[int, ...] = ()
    caches: dict[str, Cache] = field(default_factory=dict)
    angles: dict[str, np.ndarray] = field(default_factory=dict)
    window: int = 0
    sink: int = 0
    recent: int = 0
    octaves: int = 0
    tile: int = 0

    @property
    def memories(self) -> dict[str, Memory]:
        """Those of the caches that have one."""
        return {n: c.memory for n, c in self.caches.items() if c.memory is not None}

    def keys_of(self, cache: str) -> int:
        """Keys that a cache holds at most."""
        memory = self.caches[cache].memory
        return self.slots if memory is None else memory.rows

    @property
    def slots(self) -> int:
        """Keys that a cache of the text holds at most."""
        return self.window or self.context

    def slots_of(self, positions: np.ndarray) -> np.ndarray:
        """Where keys of these positions are kept: behind the sink a new one replaces the oldest."""
        around = self.sink + (positions - self.sink) % max(self.slots - self.sink, 1)
        return np.where(positions < self.slots, positions, around)

    @property
    def counted_from(self) -> int:
        """The position from which on the attention to each key counts; the context: none does."""
        return max(self.sink, self.slots - COUNTED) if self.recent else self.context

    def fits(self, position: int, rows: int, counts: bool) -> bool:
        """Whether a pass of so many rows may begin at a position: with room for all of its keys,
        or a single one. counts: whether it says what attention each key has."""
        inside = rows == 1 or position + rows <= self.slots
        return inside and (counts or position + rows <= self.counted_from)


@dataclass
class QuantGraph:
    """Operations in order, all integer tensors by name, and the outputs.

    inputs: names, shapes and kinds of the module's inputs, in call order. host: as in the float
    graph. decoder: of a language model; constants of inputs then have a row for each position.
    lengths: of each sequence, where they are told apart (`with_lengths`); `tokens` is then the
    largest, and inputs and outputs are [rows, ...], one sequence behind the other.
    useful_macs of the graph: multiply-accumulates of linears and attention that count.
    """

    batch: int
    tokens: int
    inputs: list[FloatInput] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[QuantOp] = field(default_factory=list)
    outputs: list[QuantOutput] = field(default_factory=list)
    host: HostGraph | None = None
    decoder: DecoderState | None = None
    lengths: tuple[int, ...] = ()

    @property
    def feeds(self) -> list[FloatInput]:
        """The module's inputs, then what the host computes from them."""
        return [*self.inputs, *(self.host.feeds if self.host else ())]

    @property
    def rows(self) -> Rows:
        """Its sequences: of all tensors but those that have `tokens` of their own."""
        return Rows(self.lengths) if self.lengths else Rows.uniform(self.batch, self.tokens)

    def rows_of(self, name: str) -> Rows:
        """Sequences of a tensor or a mask."""
        if name in self.tensors:
            tokens = self.tensors[name].tokens
        else:
            op = next(op for op in self.ops if isinstance(op, QuantInput) and op.out == name)
            shape = next(item.shape for item in self.feeds if item.name == op.source[0])
            tokens = 0 if self.lengths else math.prod(shape) // self.batch
        return Rows.uniform(self.batch, tokens) if tokens else self.rows

    def tokens_of(self, name: str) -> int:
        """Rows of the longest sequence of a tensor or a mask."""
        return max(self.rows_of(name).lengths)

    @property
    def linears(self) -> list[QuantLinear]:
        """Linear layers, each once: without the second passes, those over low bytes."""
        low = {getattr(op, "low8", None) for op in self.ops}
        return [op for op in self.ops if isinstance(op, QuantLinear) and op.x not in low]

    @property
    def useful_macs(self) -> int:
        """Multiply-accumulates without padding, copies, second passes and pruned weights; of causal
        attention, valid pairs."""
        total = 0
        for op in self.linears:
            total += self.rows_of(op.x).total * op.useful_macs_per_row
        for op in self.ops:
            if isinstance(op, QuantAttention):
                lengths = zip(self.rows_of(op.q).lengths, self.rows_of(op.k).lengths, strict=True)
                pairs = sum(q * (q + 1) // 2 if op.causal else q * k for q, k in lengths)
                total += 2 * pairs * self.tensors[op.q].features
        return total
