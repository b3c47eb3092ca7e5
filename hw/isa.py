"""The command stream: the one definition that RTL, compiler, golden model, driver and docs share.

A program is a sequence of 32-byte little-endian commands, executed from the first to `HALT`.
The dispatcher sends each command, in order, to the queue of the unit that executes it. A unit
executes its queue in order; order *between* units exists only where a command waits. A wait is a
unit and a distance: it holds a command back until that unit has completed all commands that were
dispatched to it before this one, but for the last `distance`. So a wait names earlier commands
only, and no program can deadlock.

With the option `decoder`, the machine has fifteen registers of 20 bits, which the driver writes and
`ADD`, `SELECT` and `KEEP` change: the same program so serves every position of a sequence. Two
numbers in the header of a command name registers, 0 none:

- `register`: its value R moves what the command is about. LOAD and STORE: `offset += R *
  pitch(memory)`; beyond 32 bits it is outside of every window. Matrix commands and SOFTMAX:
  `limit += R`, which stops at the largest limit. ADD, SELECT and KEEP: the register that they
  write. Others have none.
- `predicate`: the command is dropped unless something is left to do: unless `limit + last + R > 0`
  in commands with a limit (as it stands in the command, without its `register`; `last` is `period -
  1`, or `rows - 1` without a period, with `causal`, else 0), unless `R > 0` in others. A dropped
  command is not dispatched: no unit counts it, and no wait sees it. KEEP is never dropped: it then
  finds nothing. BARRIER has none.

Addresses may repeat: what a command writes twice holds what its loops write last. Undefined, and
not checked by the machine, is only:

- A `VECTOR` or `NORM` that reads residual words and writes others back, if its result overlaps its
  operand in another way than in place (the same words, no word twice). Golden model and compiler
  refuse it.
- Row state (`ROW_MAX`; `OCTAVE`, `LARGEST`, `SHIFT` and `L`; `SUM` and `SQUARES`) that a command
  reads before the same program has written it. The golden model refuses it.
- The order of two commands of different units that touch the same words, if no wait makes one of
  them the later one. In the vector unit this holds for a command that reads what an earlier one
  of the same unit writes, too. The golden model keeps the order of the stream.
- What on-chip words hold before a program writes them: after a program that ended with `HALT` what
  it left there, after power-up and after an error anything.
- After an error, how much was written of the command that failed and of those around it on other
  units, and what registers hold that ADD, SELECT or KEEP change. No byte outside the writable
  windows ever is.
- Which command is reported if several fail. `ILLEGAL_COMMAND` and `PROGRAM_END` are found in the
  order of the stream, when all commands in front are done. The other errors are found by units that
  run side by side: the machine reports one command of those that fail and are not held back, the
  golden model the first one in the stream.
- A register that `SELECT` or `KEEP` writes, in commands that no BARRIER or HALT separates from it;
  with `prune`, a BARRIER with waits does if one of them is for that command. The golden model
  refuses it.

Commands with `wide` in their header have 16-bit operands or results in two signed bytes, `x = 256
* high + low`: word 2*i has the high bytes of row i, word 2*i + 1 the low ones. A row of a wide GEMM
is two rows of activations, whose sums meet in front of the accumulator. Wide results saturate to
`satW`, -32768 .. 32639, so that `high = (x + 128) >> 8` is a byte.

A wait of a matrix command (GEMM, SPARSE_GEMM, SCALED_GEMM, LOW_GEMM) in slot 0 holds back its
weights only, those in slots 1 and 2 hold back its activations and accumulators: so the weights of
the next command load while it still waits.

Notation in the descriptions: `R`, `C`, `V` are rows, columns and lanes of the configuration,
`P = R / V` or `C / V` the groups in a destination word. `affine(x, p) = (x * p.mul + p.offset)
>> p.shift` (arithmetic shift; the compiler folds rounding, bias and zero point into `offset`),
`satN` saturates to a signed N-bit integer, sums wrap (`ACC` and `SUM` are signed 32 bits, `SQUARES`
unsigned 44, `L` unsigned 42), `row(i) = i % period if period else i`,
`round(x, s) = s <= 0 ? x << -s : (x + (1 << (s-1))) >> s`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

__all__ = [
    "COMMANDS",
    "COMMAND_BYTES",
    "COUNT_BITS",
    "DISTANCE_BITS",
    "ISA_VERSION",
    "MATRIX_OPCODES",
    "PRUNE_OPCODES",
    "STAYS",
    "Command",
    "CommandSpec",
    "Described",
    "ErrorCode",
    "Field",
    "Function",
    "IsaError",
    "Memory",
    "Opcode",
    "Region",
    "Unit",
    "Wait",
    "decode",
    "encode",
    "last_limit",
    "overlaps_itself",
]

ISA_VERSION: Final = 5
COMMAND_BYTES: Final = 32
COUNT_BITS: Final = 12
"""Inside the machine, completion counts wrap at 2**COUNT_BITS; `a` has reached `b` if
`(a - b) mod 4096 < 2048`."""
DISTANCE_BITS: Final = 10
REGISTERS: Final = 16
"""Register 0 is none."""
REGISTER_BITS: Final = 20
STAYS: Final = 1 << 19
"""What `KEEP` writes to a register if something stays: above 0 with any limit that is added."""
SELECTED: Final = 8
"""Values that `SELECT` keeps of a row."""
WAIT_SLOTS: Final = 3
HEADER_BITS: Final = 64

# Number formats that more than one unit relies on.
MID_BITS: Final = 18  # result of the first affine stage
GELU_FRACTION_BITS: Final = 10  # GELU works on units of 2^-10
NORM_FRACTION_BITS: Final = 12  # the normalised row has units of 2^-12
SCORE_FRACTION_BITS: Final = 8  # softmax works on octaves with 8 fraction bits
SUM_FRACTION_BITS: Final = 25  # the softmax sum has units of 2^-25
SUM_BITS: Final = 42  # unsigned: 131,072 keys of at most 255/256
TOTAL_BITS: Final = 32  # the statistics SUM, signed
SQUARES_BITS: Final = 44  # SQUARES, unsigned: 8,192 squares of 2^15
SCALE_FRACTION_BITS: Final = 9  # O / l has 9 fraction bits
MASKED_SCORE: Final = -(1 << 31)  # what a masked key leaves in the accumulator
NO_LIMIT: Final = (1 << 17) - 1


class IsaError(ValueError):
    """A command that cannot be encoded or decoded; the text names command and field."""


class Described(enum.IntEnum):
    """Numbers with a `text` that says what they mean."""

    text: str

    def __new__(cls, value: int, text: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        return member


class Opcode(enum.IntEnum):
    """Zero is illegal, so that executing cleared memory stops at once."""

    LOAD = 1
    STORE = 2
    GEMM = 3
    SPARSE_GEMM = 4
    VECTOR = 5
    NORM = 6
    SCALE = 7
    SOFTMAX = 8
    BARRIER = 9
    HALT = 10
    SELECT = 11
    ADD = 12
    SCALED_GEMM = 13
    LOW_GEMM = 14
    KEEP = 15


MATRIX_OPCODES: Final = (
    Opcode.GEMM,
    Opcode.SPARSE_GEMM,
    Opcode.SCALED_GEMM,
    Opcode.LOW_GEMM,
)
"""They have the same fields."""

PRUNE_OPCODES: Final = (Opcode.LOW_GEMM, Opcode.KEEP)
"""Only machines with `prune` have them."""


class Unit(enum.IntEnum):
    """Units with a queue and a completion count. Zero means "no wait"."""

    NONE = 0
    LOAD_WEIGHTS = 1
    LOAD_ACTIVATIONS = 2
    MATRIX = 3
    VECTOR = 4
    STORE = 5


class Memory(enum.IntEnum):
    """On-chip memories. `PARAM0`, `PARAM1` and `MASK` can only be loaded."""

    NONE = 0
    ACTIVATION = 1
    WEIGHT = 2
    RESIDUAL = 3
    PARAM0 = 4
    PARAM1 = 5
    MASK = 6


class Region(enum.IntEnum):
    """DRAM windows that the driver opens. Programs hold offsets, never addresses."""

    PROGRAM = 0
    CONSTANT = 1
    WORKSPACE = 2
    IO = 3


class Function(enum.IntEnum):
    """Elementwise function between the two affine stages."""

    NONE = 0
    RELU = 1
    GELU_ERF = 2
    GELU_TANH = 3
    SILU = 4


class ErrorCode(Described):
    """Why the machine stopped (status register).

    A command that is illegal is not started, whatever else is wrong with it. A transfer beyond its
    window and its memory too reports one of `DMA_WINDOW`, `ONCHIP_RANGE`.
    """

    NONE = 0, "no error"
    ILLEGAL_COMMAND = 1, "unknown opcode, or a field outside its range or not aligned"
    DMA_WINDOW = 3, "a DRAM access outside its region, or a store to a read-only one"
    ONCHIP_RANGE = 4, "an on-chip address beyond its memory"
    AXI_READ = 5, "the bus answered a read with an error"
    AXI_WRITE = 6, "the bus answered a write with an error"
    PROGRAM_END = 7, "the program region ended without HALT"
    ADDRESS_BITS = 8, "started with a region whose base has bits that the bus address has not"


@dataclass(frozen=True)
class Field:
    """One field of a command: its place in the 256-bit word is given by the order of fields."""

    name: str
    bits: int
    doc: str
    signed: bool = False
    nonzero: bool = False

    @property
    def minimum(self) -> int:
        if self.signed:
            return -(1 << (self.bits - 1))
        return 1 if self.nonzero else 0

    @property
    def maximum(self) -> int:
        return (1 << (self.bits - (1 if self.signed else 0))) - 1


WAIT_BITS: Final = 3 + DISTANCE_BITS
HEADER: Final = (
    Field("register", 4, "register whose value moves offset or limit, or that is written; 0: none"),
    Field("predicate", 4, "register that says whether to drop the command; 0: never"),
    Field("period", 7, "rows after which the causal limit begins anew; 0: never"),
    Field("wide", 1, "16-bit operands (GEMM) or results, in two bytes"),
    Field("trim", 1, "leave out tiles behind the last column that any row may see"),
)
"""Fields of the header behind opcode (8 bits) and waits (three of 13), each of those commands alone
that name it."""


@dataclass(frozen=True)
class CommandSpec:
    """A command: unit that executes it, fields after the header, and its loop nest.

    header: names of the fields of the header that it has.
    """

    opcode: Opcode
    units: tuple[Unit, ...]
    fields: tuple[Field, ...]
    summary: str
    loops: str
    header: tuple[str, ...] = ("predicate",)

    @property
    def all_fields(self) -> tuple[Field, ...]:
        """Those of the header, then the others."""
        return (*(item for item in HEADER if item.name in self.header), *self.fields)

    def offset_of(self, name: str) -> int:
        """Bit position of a field in the command word."""
        position = 8 + WAIT_SLOTS * WAIT_BITS
        for item in HEADER:
            if item.name == name and name in self.header:
                return position
            position += item.bits
        position = HEADER_BITS
        for item in self.fields:
            if item.name == name:
                return position
            position += item.bits
        raise KeyError(name)


_DRAM = (
    Field("region", 2, "DRAM region"),
    Field("queue", 1, "LOAD: 0 weights queue, 1 activations queue. STORE: 0"),
    Field("memory", 3, "on-chip memory"),
    Field("offset", 32, "bytes from the start of the region; a multiple of the bus width"),
    Field("words", 16, "words of a run", nonzero=True),
    Field("runs", 16, "runs", nonzero=True),
    Field("dram_stride", 32, "bytes between the starts of runs; a multiple of the bus width"),
    Field("address", 16, "first on-chip word"),
    Field("word_stride", 16, "on-chip words between the words of a run"),
    Field("run_stride", 16, "on-chip words between the starts of runs"),
    Field("limit", 18, "with a predicate: dropped unless limit + R > 0", True),
)

_ROWS = (
    Field("rows", 12, "rows M", nonzero=True),
    Field("groups", 12, "groups of V columns", nonzero=True),
)
_DESTINATION = (
    Field("dst_memory", 2, "INT8 result: 0 none, 1 activation, 2 weight memory"),
    Field("dst_by_column", 1, "destination word holds 0: R values, 1: C values (V operand)"),
    Field("dst_address", 16, "word of panel 0, row 0"),
    Field("dst_stride", 16, "words between panels"),
)
_ACCUMULATOR = (
    Field("acc_address", 16, "accumulator word of panel 0, row 0"),
    Field("acc_stride", 12, "words between panels of C columns"),
)
_SLOT = (Field("slot", 10, "row state of row 0"),)
_LIMIT = (
    Field(
        "limit", 18, "column j of row i is a valid key if j < limit + (causal ? row(i) : 0)", True
    ),
    Field("causal", 1, "limit grows by one each row"),
)

_GEMM = (
    Field("rows", 12, "rows M", nonzero=True),
    Field("k_tiles", 10, "reduction tiles of R (SPARSE_GEMM: 2R)", nonzero=True),
    Field("n_tiles", 10, "output tiles of C", nonzero=True),
    Field("a_address", 16, "activation word of panel 0, row 0"),
    Field("a_stride", 16, "words between panels of R; odd in a SPARSE_GEMM for full speed"),
    Field("a_unsigned", 1, "activations are unsigned (softmax weights)"),
    Field("w_address", 16, "weight word of tile (0, 0)"),
    Field("w_by_column", 1, "a word is 0: row of the tile (C), 1: column of the tile (R); GEMM"),
    Field("w_int4", 1, "a word by row holds two rows of the tile as nibbles, low one first"),
    Field(
        "w_group",
        4,
        "w_int4: reduction tiles that share a word of multipliers (SCALED_GEMM: of scales and one "
        "of offsets), 0: none",
    ),
    Field("w_k_stride", 16, "words between reduction tiles, without those of multipliers"),
    Field("w_n_stride", 16, "words between output tiles"),
    *_ACCUMULATOR,
    Field("accumulate", 1, "add to what the accumulator holds instead of overwriting it"),
    Field(
        "rescale",
        1,
        "with accumulate: first shift it right by SHIFT[slot + i], or left if < 0; without: add to "
        "what the accumulator holds shifted right by 8, rounded (the sums of low bytes of weights)",
    ),
    Field("row_max", 1, "write the row maxima of the result, and apply limit and mask"),
    Field("mask", 1, "with row_max: apply the key mask"),
    Field("mask_address", 12, "mask word of output tile 0"),
    *_SLOT,
    *_LIMIT,
)

_SPECS = (
    CommandSpec(
        Opcode.LOAD,
        (Unit.LOAD_WEIGHTS, Unit.LOAD_ACTIVATIONS),
        _DRAM,
        "Copy words from DRAM to an on-chip memory.",
        """
        for r in range(runs):
            for w in range(words):
                MEM[memory][address + r*run_stride + w*word_stride] =
                    DRAM[region][offset + r*dram_stride + w*pitch(memory)]
        """,
        ("register", "predicate"),
    ),
    CommandSpec(
        Opcode.STORE,
        (Unit.STORE,),
        _DRAM,
        "Copy words from ACTIVATION, WEIGHT or RESIDUAL memory to DRAM.",
        """
        for r in range(runs):
            for w in range(words):
                DRAM[region][offset + r*dram_stride + w*pitch(memory)] =
                    MEM[memory][address + r*run_stride + w*word_stride]   # padding bytes 0
        """,
        ("register", "predicate"),
    ),
    CommandSpec(
        Opcode.GEMM,
        (Unit.MATRIX,),
        _GEMM,
        "Multiply activations by weights into the accumulator. With `wide`, `a_unsigned` is 0.",
        """
        left = limit + last + R of the predicate                # as it says whether to drop this
        if trim and w_by_column: n_tiles = min(n_tiles, max(1, ceil(left / C)))
        if trim and not w_by_column: k_tiles = min(k_tiles, max(1, ceil(left / R)))
        for n in range(n_tiles):
            for k in range(k_tiles):
                base = w_address + n*w_n_stride + k*w_k_stride
                if w_group: base += k // w_group + 1            # words of multipliers so far
                MUL[c] = WEIGHT[base - 1].byte[c] % 16 + 1      # if w_group and k % w_group == 0
                W[r][c] = WEIGHT[base + r].byte[c]                              # by row
                        = WEIGHT[base + c].byte[r]                              # by column
                        = WEIGHT[base + r//2].byte[c].nibble[r%2] * MUL[c]      # w_int4
                for i in range(rows):
                    a = a_address + k*a_stride
                    x[r] = ACTIVATION[a + i].byte[r] if not wide else
                           256 * ACTIVATION[a + 2*i].byte[r] + ACTIVATION[a + 2*i + 1].byte[r]
                    psum[c] = sum(x[r] * W[r][c])
                    acc = ACC[acc_address + n*acc_stride + i]
                    if k == 0: acc = round(acc, SHIFT[slot+i]) if accumulate and rescale
                                     else acc if accumulate else round(acc, 8) if rescale else 0
                    acc[c] += psum[c]
                    if k == k_tiles-1 and row_max:
                        if n == 0: ROW_MAX[slot+i] = MASKED_SCORE
                        for c in range(C):
                            j = n*C + c
                            if mask and not MASK[mask_address + n].bit[c]: acc[c] = MASKED_SCORE
                            if j < limit + (causal ? row(i) : 0):
                                ROW_MAX[slot+i] = max(ROW_MAX[slot+i], acc[c])
                    ACC[acc_address + n*acc_stride + i] = acc
        """,
        ("register", "predicate", "period", "wide", "trim"),
    ),
    CommandSpec(
        Opcode.SPARSE_GEMM,
        (Unit.MATRIX,),
        _GEMM,
        "Multiply activations by 2:4 sparse weights: a tile covers 2R inputs in the time of R.",
        """
        for n in range(n_tiles):                                    # as GEMM, but for
            for k in range(k_tiles):
                base as above
                for r in range(R):                                  # rows r of a tile: quad r//2
                    q, u = divmod(r, 4)                             # four rows share their indices
                    index = WEIGHT[base + q*5].byte[c].bits[2*u:2*u+2]      # INT8: 1 + 4 words
                    W[r][c] = WEIGHT[base + q*5 + 1 + u].byte[c]
                    index = WEIGHT[base + q*3].byte[c].bits[2*u:2*u+2]      # w_int4: 1 + 2 words
                    W[r][c] = WEIGHT[base + q*3 + 1 + u//2].byte[c].nibble[u%2] * MUL[c]
                    S[r][c] = 4*(r//2) + r%2 + min(index, 2)        # input within the tile
                for i in range(rows):
                    x = ACTIVATION[a_address + 2*k*a_stride + i].bytes +
                        ACTIVATION[a_address + (2*k+1)*a_stride + i].bytes      # wide: as GEMM
                    psum[c] = sum(x[S[r][c]] * W[r][c])
        """,
        ("register", "predicate", "period", "wide"),
    ),
    CommandSpec(
        Opcode.SCALED_GEMM,
        (Unit.MATRIX,),
        _GEMM,
        "Multiply activations by INT4 weights whose groups have a scale and an offset, which are "
        "applied to the sums of each tile. `w_int4` is 1, `w_group` is not 0.",
        """
        for n in range(n_tiles):                                    # as GEMM, but for
            for k in range(k_tiles):
                base = w_address + n*w_n_stride + k*w_k_stride + 2 * (k // w_group + 1)
                SCALE[c] = WEIGHT[base - 2].byte[c]                 # if k % w_group == 0: unsigned,
                OFFSET[c] = WEIGHT[base - 1].byte[c]                # signed
                W[r][c] = WEIGHT[base + r//2].byte[c].nibble[r%2]   # signed
                for i in range(rows):
                    scaled(x)[c] = SCALE[c] * sum(x[r] * W[r][c]) + 8 * OFFSET[c] * sum(x[r])
                    psum[c] = scaled(x)[c] if not wide else
                              scaled(high bytes)[c] + round(scaled(low bytes)[c], 8)
        """,
        ("register", "predicate", "period", "wide"),
    ),
    CommandSpec(
        Opcode.VECTOR,
        (Unit.VECTOR,),
        (
            *_ROWS,
            *_ACCUMULATOR,
            *_DESTINATION,
            Field("param0", 12, "first-stage parameters of group 0 (PARAM0)"),
            Field("param1", 12, "second-stage parameters of group 0 (PARAM1)"),
            Field("res_address", 16, "residual word of row 0, group 0"),
            Field("res_stride", 12, "residual words between rows"),
            Field("res_dst_address", 16, "residual result, the same stride"),
            *_SLOT,
            Field("from_residual", 1, "operand: 0 accumulator, 1 residual memory"),
            Field(
                "function", 3, "0 none, 1 ReLU, 2 GELU (erf), 3 GELU (tanh), 4 SiLU; units of 2^-10"
            ),
            Field("add_residual", 1, "add the residual word"),
            Field("res_shift", 4, "right shift of the residual operand, rounded"),
            Field("write_residual", 1, "write the INT16 result to residual memory"),
            Field("statistics", 1, "gather sum and sum of squares of each row"),
            Field("statistics_first", 1, "restart the statistics instead of adding to them"),
            Field("two_stage", 1, "INT8 result goes through the second affine stage"),
            Field("wrap", 1, "INT8 result: the low 8 bits of the value, instead of saturating"),
            Field("same_param0", 1, "all groups have the first-stage parameters of group 0"),
            Field("same_param1", 1, "all groups have the second-stage parameters of group 0"),
            Field("gated", 1, "groups are pairs of a gate and what it multiplies"),
            Field("rotate", 1, "rotate pairs of lanes by angles in the residual words"),
        ),
        "Requantise: affine, function, residual add, second affine; or a product of two groups, or "
        "a rotation, in place of the second affine. `gated` and `rotate` need `two_stage`, a "
        "destination, and none of `add_residual`, `from_residual`, `write_residual`, `statistics`, "
        "`wrap` or each other; `gated` an even number of groups.",
        """
        for i in range(rows):
            for g in range(groups):
                p0, p1 = param0 + (0 if same_param0 else g), param1 + (0 if same_param1 else g)
                for v in range(V):
                    r[v] = RESIDUAL[res_address + i*res_stride + g][v]
                    j = g*V + v
                    x = r[v] if from_residual else ACC[acc_address + (j // C)*acc_stride + i][j % C]
                    h = sat18(affine(x, PARAM0[p0][v]))
                    h = function(h) if not gated or g % 2 == 0 else h
                    if add_residual: h = sat16(sat16(h) + round(r[v], res_shift))
                    if write_residual: RESIDUAL[res_dst_address + i*res_stride + g][v] = sat16(h)
                    if statistics: SUM[slot+i] += sat16(h); SQUARES[slot+i] += sat16(h)**2
                    y[v] = affine(h, PARAM1[p1][v]) if two_stage else h
                    h[v] = h
                p, d = PARAM1[p1], g
                if gated:                                       # the pair of groups g-1 and g
                    if g % 2 == 0: gate = h; continue
                    d, p = g // 2, PARAM1[param1 + (0 if same_param1 else g // 2)]
                    y[v] = (gate[v] * sat16(h[v]) + p[v].offset) >> p[v].shift
                if rotate:                                      # r: cos, sin, cos, sin, ..
                    s = sat16(h)
                    y[2u] = (s[2u] * r[2u] - s[2u+1] * r[2u+1] + p[2u].offset) >> p[2u].shift
                    y[2u+1] = (s[2u+1] * r[2u] + s[2u] * r[2u+1] + p[2u+1].offset) >> p[2u+1].shift
                for v in range(V):
                    word, byte = dst_address + (d // P)*dst_stride, (d % P)*V + v
                    if wide: DST[word + 2*i].byte[byte] = (satW(y[v]) + 128) >> 8
                             DST[word + 2*i + 1].byte[byte] = satW(y[v]) % 256
                    else: DST[word + i].byte[byte] = y[v] % 256 if wrap else sat8(y[v])
        """,
        ("predicate", "wide"),
    ),
    CommandSpec(
        Opcode.NORM,
        (Unit.VECTOR,),
        (
            *_ROWS,
            *_DESTINATION,
            Field("param0", 12, "gain and offset of the INT16 result (PARAM0)"),
            Field("param1", 12, "gain and offset of the INT8 result (PARAM1)"),
            Field("res_address", 16, "residual word of row 0, group 0"),
            Field("res_stride", 12, "residual words between rows"),
            Field("res_dst_address", 16, "INT16 result, the same stride"),
            *_SLOT,
            Field("write_residual", 1, "write the INT16 result"),
            Field("features", 13, "normalised length H, without padding", nonzero=True),
            Field("epsilon", 32, "epsilon * H^2 in units of the residual's squared scale"),
            Field("rms", 1, "root mean square norm: without the mean"),
            Field("same_param1", 1, "all groups have the second-stage parameters of group 0"),
        ),
        "Layer norm or RMS norm from gathered statistics.",
        """
        for i in range(rows):
            total = 0 if rms else SUM[slot+i]
            p = norm_row(total, SQUARES[slot+i], features, epsilon)           # numerics.md
            for g in range(groups):
                for v in range(V):
                    r = RESIDUAL[res_address + i*res_stride + g][v]
                    z = sat18(affine(r, p))                                   # units of 2^-12
                    if write_residual:
                        RESIDUAL[res_dst_address + i*res_stride + g][v] =
                            sat16(affine(z, PARAM0[param0 + g][v]))
                    y = affine(z, PARAM1[param1 + (0 if same_param1 else g)][v])
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] = sat8(y)
                                                                # or wide: as VECTOR
        """,
        ("predicate", "wide"),
    ),
    CommandSpec(
        Opcode.SCALE,
        (Unit.VECTOR,),
        (
            *_ROWS,
            *_ACCUMULATOR,
            *_DESTINATION,
            Field("param1", 12, "second-stage parameters of group 0 (PARAM1)"),
            *_SLOT,
            Field("same_param1", 1, "all groups have the second-stage parameters of group 0"),
        ),
        "Divide attention rows by their softmax sum and requantise.",
        """
        for i in range(rows):
            p = reciprocal_row(L[slot+i])                                     # numerics.md
            for g in range(groups):
                for v in range(V):
                    j = g*V + v
                    x = ACC[acc_address + (j // C)*acc_stride + i][j % C]
                    h = sat18(affine(x, p))                                   # units of 2^-9
                    y = affine(h, PARAM1[param1 + (0 if same_param1 else g)][v])
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] = sat8(y)
                                                                # or wide: as VECTOR
        """,
        ("predicate", "wide"),
    ),
    CommandSpec(
        Opcode.SOFTMAX,
        (Unit.VECTOR,),
        (
            *_ROWS,
            *_ACCUMULATOR,
            *_DESTINATION,
            *_SLOT,
            *_LIMIT,
            Field("score_shift", 5, "score * 2^-(score_shift + 8) is in octaves"),
            Field("first", 1, "first key block of these rows: start maximum and sum anew"),
            Field("drop", 3, "octaves by which those of the sums may be below the largest so far"),
        ),
        "One online softmax step: scores to unsigned 8-bit weights, running maximum and sum.",
        """
        for i in range(rows):
            top = ROW_MAX[slot+i]
            old, largest = first ? (-2^25, -2^25) : (OCTAVE[slot+i], LARGEST[slot+i])
            new = old
            if top != MASKED_SCORE:
                b = ceil(round(top, score_shift) / 256)                       # of this block
                new = b if first else max(b, largest - drop)
                largest = max(b, largest)
            OCTAVE[slot+i] = new; LARGEST[slot+i] = largest
            SHIFT[slot+i] = min(new - old, 31)
            L[slot+i] = first ? 0 : round(L[slot+i], SHIFT[slot+i])
            for g in range(groups):
                for v in range(V):
                    j = g*V + v
                    s = ACC[acc_address + (j // C)*acc_stride + i][j % C]
                    n, f = divmod(new*256 - round(s, score_shift), 256)
                    T = exp2_fraction(f)                                      # 2^-f, units of 2^-15
                    valid = j < limit + (causal ? row(i) : 0) and s != MASKED_SCORE and n >= 0
                    L[slot+i] += round(T << 10, n) if valid else 0            # units of 2^-25
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] =
                        round(T, n + 7) if valid else 0
        """,
        ("register", "predicate", "period"),
    ),
    CommandSpec(
        Opcode.SELECT,
        (Unit.VECTOR,),
        (
            *_ROWS,
            *_ACCUMULATOR,
            *_SLOT,
            Field("limit", 18, "columns from it on are not looked at", True),
            Field("base", 20, "index of column 0"),
            Field("score_shift", 5, "the value is the score shifted right by it, rounded"),
            Field("first", 1, "forget what was selected before"),
            Field("write_residual", 1, "write the selection to residual memory"),
            Field("res_address", 16, "residual word of row 0"),
            Field("res_stride", 12, "residual words between rows"),
        ),
        "Keep the 8 largest values of each row, over all commands since the first one. Slots 0 to "
        "15 select for 8 rows: two commands that take turns need not wait for each other's state.",
        """
        for i in range(rows):
            s = (slot + i) % 8
            best = [(MASKED_SCORE, 2**20 - 1)] * 8 if first else SELECTED[s]
            for j in range(min(groups * V, limit)):
                value = round(ACC[acc_address + (j // C)*acc_stride + i][j % C], score_shift)
                if value > best[7].value:                 # among equal values the earlier is first
                    best = first 8 of best with (value, (base + j) % 2**20), sorted by falling value
            SELECTED[s] = best
            if write_residual:                            # INT16 halves, low one first
                halves = [value, value >> 16, index, index >> 16 for value, index in best]
                halves += [OCTAVE[slot+i], OCTAVE[slot+i] >> 16]
                halves += [L[slot+i], L[slot+i] >> 16, L[slot+i] >> 32, 0, 0, 0]
                RESIDUAL[res_address + i*res_stride + ..] = halves, V in a word, 0 behind them
        if register: R[register] = SELECTED[s][0].index   # of the last row
                                                          # for commands behind a BARRIER or HALT
        """,
        ("register", "predicate"),
    ),
    CommandSpec(
        Opcode.ADD,
        (),
        (Field("value", 20, "what is added"),),
        "Add to a register, for the commands that follow.",
        "R[register] = (R[register] + value) % 2**20",
        ("register", "predicate"),
    ),
    CommandSpec(
        Opcode.BARRIER,
        (),
        (),
        "Hold dispatch until every unit has finished everything. With the option `prune`, one with "
        "waits holds it only until these are met.",
        "",
        (),
    ),
    CommandSpec(
        Opcode.HALT,
        (),
        (),
        "End of the program: wait for every unit, then report done. Dropped by its predicate, the "
        "program goes on behind it.",
        "",
        ("predicate",),
    ),
    CommandSpec(
        Opcode.LOW_GEMM,
        (Unit.MATRIX,),
        _GEMM,
        "Multiply 16-bit activations by the low bytes of weights, for sums of their high bytes. "
        "`wide` is 1, `w_int4` 0.",
        """
        as GEMM, but for
            psum[c] = round(sum(x[r] * W[r][c]), 8)             # of each tile
        """,
        ("register", "predicate", "period", "wide"),
    ),
    CommandSpec(
        Opcode.KEEP,
        (Unit.VECTOR,),
        (
            Field("rows", 12, "rows M", nonzero=True),
            *_SLOT,
            Field("limit", 18, "with a predicate: finds nothing unless limit + R > 0", True),
            Field("score_shift", 5, "score * 2^-(score_shift + 8) is in octaves"),
            Field("first", 1, "first key block of these rows: start their maximum anew"),
            Field("octaves", 5, "a block stays up to so many octaves below the largest so far"),
        ),
        "Whether any row of a block of scores has one that is not far below the largest so far.",
        """
        stays = False
        for i in range(rows):
            top = ROW_MAX[slot+i] if predicate == 0 or limit + R[predicate] > 0 else MASKED_SCORE
            old, largest = first ? (-2^25, -2^25) : (OCTAVE[slot+i], LARGEST[slot+i])
            new = old
            if top != MASKED_SCORE:
                b = ceil(round(top, score_shift) / 256)                   # of this block
                stays = stays or b >= largest - octaves
                new = largest = max(b, largest)
            OCTAVE[slot+i] = new; LARGEST[slot+i] = largest; SHIFT[slot+i] = min(new - old, 31)
        if register: R[register] = stays ? 2^19 : 0     # for commands behind a BARRIER or HALT
        """,
        ("register", "predicate"),
    ),
)

COMMANDS: Final[dict[Opcode, CommandSpec]] = {spec.opcode: spec for spec in _SPECS}

for _spec in _SPECS:
    assert HEADER_BITS + sum(f.bits for f in _spec.fields) <= 8 * COMMAND_BYTES, _spec.opcode


@dataclass(frozen=True)
class Wait:
    """Hold back until `unit` has completed what was dispatched to it before, but for the last
    `distance` commands."""

    unit: Unit
    distance: int


@dataclass(frozen=True)
class Command:
    """A decoded command. `values` has every field of its opcode, those of the header too; `waits`
    has three slots."""

    opcode: Opcode
    values: dict[str, int] = field(default_factory=dict)
    waits: tuple[Wait | None, Wait | None, Wait | None] = (None, None, None)

    @property
    def unit(self) -> Unit:
        """The unit whose queue takes this command, `Unit.NONE` for the dispatcher itself."""
        if self.opcode == Opcode.LOAD:
            return Unit.LOAD_ACTIVATIONS if self.values["queue"] else Unit.LOAD_WEIGHTS
        units = COMMANDS[self.opcode].units
        return units[0] if units else Unit.NONE

    def __getitem__(self, name: str) -> int:
        return self.values[name]


def overlaps_itself(opcode: Opcode, values: Mapping[str, int]) -> bool:
    """Whether a command reads residual words that it writes for others: its result is undefined.

    Word (row, group) lies at `address + row*res_stride + group`.
    """
    if opcode == Opcode.VECTOR:
        reads = values["from_residual"] or values["add_residual"]
    else:
        reads = opcode == Opcode.NORM
    if not (reads and values["write_residual"]):
        return False
    rows, groups, stride = values["rows"], values["groups"], values["res_stride"]
    distance = abs(values["res_dst_address"] - values["res_address"])
    if distance == 0:
        return rows > 1 and stride < groups
    # Rows `apart` rows from each other share a word if their starts are closer than a row is long.
    apart = min(distance // stride, rows - 1) if stride else 0
    nearest = {apart, min(apart + 1, rows - 1)}
    return any(abs(distance - n * stride) < groups for n in nearest)


def last_limit(values: Mapping[str, int]) -> int:
    """`limit + last` of a command: a predicate drops it unless this + R is above 0."""
    last = (values["period"] or values["rows"]) - 1 if values.get("causal", 0) else 0
    return values.get("limit", 0) + last


def trimmed(values: Mapping[str, int], predicate: int, rows: int, columns: int) -> dict[str, int]:
    """The tiles of a GEMM on an array of so many rows and columns, given its predicate's value."""
    if not values.get("trim", 0):
        return {}
    name, size = ("n_tiles", columns) if values["w_by_column"] else ("k_tiles", rows)
    left = last_limit(values) + predicate
    return {name: min(values[name], max(1, -(-left // size)))}


def encode(command: Command) -> bytes:
    """Encode into 32 bytes. Missing fields are 0. Raises `IsaError`.

    Header, from bit 0: opcode (8), three waits of 13 (unit 3, distance 10), `HEADER`.
    """
    spec = COMMANDS[command.opcode]
    unknown = set(command.values) - {f.name for f in spec.all_fields}
    if unknown:
        raise IsaError(f"{command.opcode.name} has no field {', '.join(sorted(unknown))}")
    word = int(command.opcode)
    for slot, wait in enumerate(command.waits):
        if wait is not None:
            if not 0 <= wait.distance < 1 << DISTANCE_BITS:
                raise IsaError(
                    f"{command.opcode.name}: a wait's distance {wait.distance} is outside "
                    f"0..{(1 << DISTANCE_BITS) - 1}"
                )
            word |= (int(wait.unit) | wait.distance << 3) << (8 + WAIT_BITS * slot)
    for item in spec.all_fields:
        value = int(command.values.get(item.name, 0))
        if not item.minimum <= value <= item.maximum:
            raise IsaError(
                f"{command.opcode.name}.{item.name} = {value} is outside "
                f"{item.minimum}..{item.maximum}"
            )
        word |= (value & ((1 << item.bits) - 1)) << spec.offset_of(item.name)
    return word.to_bytes(COMMAND_BYTES, "little")


def decode(data: bytes) -> Command:
    """Decode 32 bytes. Raises `IsaError` for what the machine would refuse as illegal."""
    if len(data) != COMMAND_BYTES:
        raise IsaError(f"a command has {COMMAND_BYTES} bytes, got {len(data)}")
    word = int.from_bytes(data, "little")
    try:
        opcode = Opcode(word & 0xFF)
    except ValueError:
        raise IsaError(f"unknown opcode {word & 0xFF}") from None
    spec = COMMANDS[opcode]
    waits: list[Wait | None] = []
    for slot in range(WAIT_SLOTS):
        code = word >> (8 + WAIT_BITS * slot) & ((1 << WAIT_BITS) - 1)
        try:
            unit = Unit(code & 7)
        except ValueError:
            raise IsaError(f"{opcode.name}: wait {slot} names unknown unit {code & 7}") from None
        waits.append(Wait(unit, code >> 3) if unit else None)
    position = 8 + WAIT_SLOTS * WAIT_BITS
    for item in HEADER:
        if item.name not in spec.header and word >> position & ((1 << item.bits) - 1):
            raise IsaError(f"{opcode.name} has no {item.name}")
        position += item.bits
    values: dict[str, int] = {}
    for item in spec.all_fields:
        value = word >> spec.offset_of(item.name) & ((1 << item.bits) - 1)
        if item.signed and value >> (item.bits - 1):
            value -= 1 << item.bits
        if item.nonzero and value == 0:
            raise IsaError(f"{opcode.name}.{item.name} must not be 0")
        values[item.name] = value
    _check(opcode, values)
    return Command(opcode, values, (waits[0], waits[1], waits[2]))


def _check(opcode: Opcode, values: Mapping[str, int]) -> None:
    """Fields that exclude or need each other. Raises `IsaError`."""

    def require(condition: object, text: str) -> None:
        if not condition:
            raise IsaError(f"{opcode.name}: {text}")

    if opcode in (Opcode.LOAD, Opcode.STORE):
        last = Memory.MASK if opcode == Opcode.LOAD else Memory.RESIDUAL
        memory = values["memory"]
        require(Memory.ACTIVATION <= memory <= last, f"it cannot use memory {memory}")
    if "dst_memory" in values:
        memory = values["dst_memory"]
        require(memory <= Memory.WEIGHT, f"unknown destination memory {memory}")
    if opcode in MATRIX_OPCODES:
        packed = opcode == Opcode.SPARSE_GEMM or values["w_int4"]
        require(not (values["w_by_column"] and packed), "sparse and INT4 weights lie by row only")
        require(values["w_int4"] or not values["w_group"], "multipliers need INT4 weights")
        scaled = opcode != Opcode.SCALED_GEMM or values["w_group"]
        require(scaled, "scales need INT4 weights in groups")
        require(not (values["wide"] and values["a_unsigned"]), "wide activations are signed")
        low = opcode != Opcode.LOW_GEMM or (values["wide"] and not values["w_int4"])
        require(low, "low bytes meet wide activations, and are no INT4 weights")
    if opcode == Opcode.VECTOR:
        require(values["function"] <= max(Function), f"unknown function {values['function']}")
        require(not (values["wide"] and values["wrap"]), "a wide result does not wrap")
        gated, rotate = values["gated"], values["rotate"]
        if gated or rotate:
            others = ("add_residual", "from_residual", "write_residual", "statistics", "wrap")
            alone = not (gated and rotate) and not any(values[name] for name in others)
            require(alone, "gated and rotate exclude other uses of the lanes")
            require(values["two_stage"] and values["dst_memory"], "gated and rotate need a result")
            require(not (gated and values["groups"] % 2), "gated groups are pairs")
    if opcode == Opcode.ADD:
        require(values["register"], "it needs a register")
