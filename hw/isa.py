"""The command stream: the one definition that RTL, compiler, golden model, driver and docs share.

A program is a sequence of 32-byte little-endian commands, executed from the first to `HALT`.
The dispatcher sends each command, in order, to the queue of the unit that executes it. A unit
executes its queue in order; order *between* units exists only where a command waits. Every
unit counts the commands it has completed; a wait holds a command back until "unit u has
completed at least n commands since the program began", n counted modulo 4096. A wait may only
name commands that stand earlier in the stream, so no program can deadlock; anything else stops
the machine with `WAIT_UNSATISFIABLE`.

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
  units. No byte outside the writable windows ever is.
- Which command is reported if several fail. `ILLEGAL_COMMAND`, `WAIT_UNSATISFIABLE` and
  `PROGRAM_END` are found in the order of the stream, when all commands in front are done. The other
  errors are found by units that run side by side: the machine reports one command of those that
  fail and are not held back, the golden model the first one in the stream.

A wait of a `GEMM` or `SPARSE_GEMM` in slot 0 holds back its weights only, those in slots 1 and 2
hold back its activations and accumulators: so the weights of the next command load while it still
waits.

Notation in the descriptions: `R`, `C`, `V` are rows, columns and lanes of the configuration,
`P = R / V` or `C / V` the groups in a destination word. `affine(x, p) = (x * p.mul + p.offset)
>> p.shift` (arithmetic shift; the compiler folds rounding, bias and zero point into `offset`),
`satN` saturates to a signed N-bit integer, sums wrap (`ACC` and `SUM` are signed 32 bits, `SQUARES`
unsigned 44, `L` unsigned 40),
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
    "ISA_VERSION",
    "MATRIX_OPCODES",
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
    "overlaps_itself",
]

ISA_VERSION: Final = 4
COMMAND_BYTES: Final = 32
COUNT_BITS: Final = 12
"""Completion counts wrap at 2**COUNT_BITS; `a` has reached `b` if `(a - b) mod 4096 < 2048`."""
WAIT_SLOTS: Final = 3
HEADER_BITS: Final = 64

# Number formats that more than one unit relies on.
MID_BITS: Final = 18  # result of the first affine stage
GELU_FRACTION_BITS: Final = 10  # GELU works on units of 2^-10
NORM_FRACTION_BITS: Final = 12  # the normalised row has units of 2^-12
SCORE_FRACTION_BITS: Final = 8  # softmax works on octaves with 8 fraction bits
SUM_FRACTION_BITS: Final = 25  # the softmax sum has units of 2^-25
SUM_BITS: Final = 40  # unsigned: 32,768 keys of at most 255/256
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


MATRIX_OPCODES: Final = (Opcode.GEMM, Opcode.SPARSE_GEMM)
"""They have the same fields."""


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


class ErrorCode(Described):
    """Why the machine stopped (status register).

    A command that is illegal is not started, whatever else is wrong with it. A transfer beyond its
    window and its memory too reports one of `DMA_WINDOW`, `ONCHIP_RANGE`.
    """

    NONE = 0, "no error"
    ILLEGAL_COMMAND = 1, "unknown opcode, or a field outside its range or not aligned"
    WAIT_UNSATISFIABLE = 2, "a wait for a command that was not dispatched yet"
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


@dataclass(frozen=True)
class CommandSpec:
    """A command: unit that executes it, fields after the header, and its loop nest."""

    opcode: Opcode
    units: tuple[Unit, ...]
    fields: tuple[Field, ...]
    summary: str
    loops: str

    def offset_of(self, name: str) -> int:
        """Bit position of a field in the command word."""
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
    Field("limit", 18, "column j of row i is a valid key if j < limit + (causal ? i : 0)", True),
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
    Field("w_group", 4, "w_int4: reduction tiles that share a word of multipliers, 0: none"),
    Field("w_k_stride", 16, "words between reduction tiles, without those of multipliers"),
    Field("w_n_stride", 16, "words between output tiles"),
    *_ACCUMULATOR,
    Field("accumulate", 1, "add to what the accumulator holds instead of overwriting it"),
    Field(
        "rescale",
        1,
        "with accumulate: first shift it right by SHIFT[slot + i], or left if < 0",
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
    ),
    CommandSpec(
        Opcode.GEMM,
        (Unit.MATRIX,),
        _GEMM,
        "Multiply activations by weights into the accumulator.",
        """
        for n in range(n_tiles):
            for k in range(k_tiles):
                base = w_address + n*w_n_stride + k*w_k_stride
                if w_group: base += k // w_group + 1            # words of multipliers so far
                MUL[c] = WEIGHT[base - 1].byte[c] % 16 + 1      # if w_group and k % w_group == 0
                W[r][c] = WEIGHT[base + r].byte[c]                              # by row
                        = WEIGHT[base + c].byte[r]                              # by column
                        = WEIGHT[base + r//2].byte[c].nibble[r%2] * MUL[c]      # w_int4
                for i in range(rows):
                    psum[c] = sum(ACTIVATION[a_address + k*a_stride + i].byte[r] * W[r][c])
                    acc = ACC[acc_address + n*acc_stride + i]
                    if k == 0: acc = round(acc, SHIFT[slot+i]) if accumulate and rescale
                                     else acc if accumulate else 0
                    acc[c] += psum[c]
                    if k == k_tiles-1 and row_max:
                        if n == 0: ROW_MAX[slot+i] = MASKED_SCORE
                        for c in range(C):
                            j = n*C + c
                            if mask and not MASK[mask_address + n].bit[c]: acc[c] = MASKED_SCORE
                            if j < limit + (causal ? i : 0):
                                ROW_MAX[slot+i] = max(ROW_MAX[slot+i], acc[c])
                    ACC[acc_address + n*acc_stride + i] = acc
        """,
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
                        ACTIVATION[a_address + (2*k+1)*a_stride + i].bytes
                    psum[c] = sum(x[S[r][c]] * W[r][c])
        """,
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
            Field("function", 2, "0 none, 1 ReLU, 2 GELU (erf), 3 GELU (tanh); units of 2^-10"),
            Field("add_residual", 1, "add the residual word"),
            Field("res_shift", 4, "right shift of the residual operand, rounded"),
            Field("write_residual", 1, "write the INT16 result to residual memory"),
            Field("statistics", 1, "gather sum and sum of squares of each row"),
            Field("statistics_first", 1, "restart the statistics instead of adding to them"),
            Field("two_stage", 1, "INT8 result goes through the second affine stage"),
            Field("wrap", 1, "INT8 result: the low 8 bits of the value, instead of saturating"),
        ),
        "Requantise: affine, function, residual add, second affine.",
        """
        for i in range(rows):
            for g in range(groups):
                for v in range(V):
                    r = RESIDUAL[res_address + i*res_stride + g][v]
                    j = g*V + v
                    x = r if from_residual else ACC[acc_address + (j // C)*acc_stride + i][j % C]
                    h = sat18(affine(x, PARAM0[param0 + g][v]))
                    h = function(h)
                    if add_residual: h = sat16(sat16(h) + round(r, res_shift))
                    if write_residual: RESIDUAL[res_dst_address + i*res_stride + g][v] = sat16(h)
                    if statistics: SUM[slot+i] += sat16(h); SQUARES[slot+i] += sat16(h)**2
                    if two_stage: h = affine(h, PARAM1[param1 + g][v])
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] =
                        h % 256 if wrap else sat8(h)
        """,
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
        ),
        "Layer norm from gathered statistics.",
        """
        for i in range(rows):
            p = norm_row(SUM[slot+i], SQUARES[slot+i], features, epsilon)     # numerics.md
            for g in range(groups):
                for v in range(V):
                    r = RESIDUAL[res_address + i*res_stride + g][v]
                    z = sat18(affine(r, p))                                   # units of 2^-12
                    if write_residual:
                        RESIDUAL[res_dst_address + i*res_stride + g][v] =
                            sat16(affine(z, PARAM0[param0 + g][v]))
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] =
                        sat8(affine(z, PARAM1[param1 + g][v]))
        """,
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
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] =
                        sat8(affine(h, PARAM1[param1 + g][v]))
        """,
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
                    valid = j < limit + (causal ? i : 0) and s != MASKED_SCORE and n >= 0
                    L[slot+i] += round(T << 10, n) if valid else 0            # units of 2^-25
                    DST[dst_address + (g // P)*dst_stride + i].byte[(g % P)*V + v] =
                        round(T, n + 7) if valid else 0
        """,
    ),
    CommandSpec(
        Opcode.BARRIER,
        (),
        (),
        "Hold dispatch until every unit has finished everything.",
        "",
    ),
    CommandSpec(
        Opcode.HALT,
        (),
        (),
        "End of the program: wait for every unit, then report done.",
        "",
    ),
)

COMMANDS: Final[dict[Opcode, CommandSpec]] = {spec.opcode: spec for spec in _SPECS}

for _spec in _SPECS:
    assert HEADER_BITS + sum(f.bits for f in _spec.fields) <= 8 * COMMAND_BYTES, _spec.opcode


@dataclass(frozen=True)
class Wait:
    """Hold back until `unit` has completed `count` (modulo 4096) commands."""

    unit: Unit
    count: int


@dataclass(frozen=True)
class Command:
    """A decoded command. `values` has every field of its opcode; `waits` has three slots."""

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


def encode(command: Command) -> bytes:
    """Encode into 32 bytes. Missing fields are 0. Raises `IsaError`.

    Header, from bit 0: opcode (8), three waits of 16 (unit 4, count 12), reserved (8).
    """
    spec = COMMANDS[command.opcode]
    unknown = set(command.values) - {f.name for f in spec.fields}
    if unknown:
        raise IsaError(f"{command.opcode.name} has no field {', '.join(sorted(unknown))}")
    word = int(command.opcode)
    for slot, wait in enumerate(command.waits):
        if wait is not None:
            code = int(wait.unit) | (wait.count % (1 << COUNT_BITS)) << 4
            word |= code << (8 + 16 * slot)
    position = HEADER_BITS
    for item in spec.fields:
        value = int(command.values.get(item.name, 0))
        if not item.minimum <= value <= item.maximum:
            raise IsaError(
                f"{command.opcode.name}.{item.name} = {value} is outside "
                f"{item.minimum}..{item.maximum}"
            )
        word |= (value & ((1 << item.bits) - 1)) << position
        position += item.bits
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
    waits: list[Wait | None] = []
    for slot in range(WAIT_SLOTS):
        code = word >> (8 + 16 * slot) & 0xFFFF
        try:
            unit = Unit(code & 0xF)
        except ValueError:
            raise IsaError(f"{opcode.name}: wait {slot} names unknown unit {code & 0xF}") from None
        waits.append(Wait(unit, code >> 4) if unit else None)
    values: dict[str, int] = {}
    position = HEADER_BITS
    for item in COMMANDS[opcode].fields:
        value = word >> position & ((1 << item.bits) - 1)
        if item.signed and value >> (item.bits - 1):
            value -= 1 << item.bits
        if item.nonzero and value == 0:
            raise IsaError(f"{opcode.name}.{item.name} must not be 0")
        values[item.name] = value
        position += item.bits
    if opcode in (Opcode.LOAD, Opcode.STORE):
        allowed = (
            range(Memory.ACTIVATION, Memory.MASK + 1)
            if opcode == Opcode.LOAD
            else range(Memory.ACTIVATION, Memory.RESIDUAL + 1)
        )
        if values["memory"] not in allowed:
            raise IsaError(f"{opcode.name} cannot use memory {values['memory']}")
    if values.get("dst_memory", 0) > Memory.WEIGHT:
        raise IsaError(f"{opcode.name}: unknown destination memory {values['dst_memory']}")
    if opcode in MATRIX_OPCODES:
        packed = opcode == Opcode.SPARSE_GEMM or values["w_int4"]
        if values["w_by_column"] and packed:
            raise IsaError(f"{opcode.name}: sparse and INT4 weights lie by row only")
        if values["w_group"] and not values["w_int4"]:
            raise IsaError(f"{opcode.name}: multipliers need INT4 weights")
    return Command(opcode, values, (waits[0], waits[1], waits[2]))
