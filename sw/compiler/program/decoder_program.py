"""A compiled decoder: one program for each number of tokens of a pass, over the same constants.

A sequence lives in a workspace of its own, so several share a machine. The position of a pass is
in a register. The host writes the numbers of up to 8 tokens, or embedding rows, starts an entry and
reads what the head selected. Behind a pass the registers hold the next position and the likeliest
token: as long as it takes that one, the host only starts the next pass.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, SELECTED
from hw.numerics import saturate
from sim.files import write_atomically
from sw.compiler.errors import InputError
from sw.compiler.graph.decoder import HEAD_BLOCK, Selection, check_tokens, memory_integers
from sw.compiler.graph.operations import (
    DecoderState,
    QuantCachedAttention,
    QuantGated,
    QuantGraph,
    QuantHead,
    QuantInput,
    QuantLinear,
)
from sw.compiler.graph.window import KeySlots
from sw.compiler.program.decoder_file import decoder_bytes, read_decoder
from sw.compiler.program.planes import Planes, plane_images, planes_of, planes_record
from sw.compiler.stream.access import selection_words
from sw.compiler.stream.layout import Form, layout_of, pack_tensor

__all__ = [
    "DecoderProgram",
    "Entry",
    "Register",
    "Sums",
    "Work",
    "graph_of_host",
    "of_caches",
    "token_registers",
    "work_of",
]


class Register(enum.IntEnum):
    """What the registers of these programs hold.

    POSITION: tokens before the pass. TOKEN: machine index of the first token of a pass of up to 8,
    if the program has an `embedding`; MORE and those behind it: of the others. READING: not 0, the
    pass ends in front of the head. With a window, SLOT: where the caches take the keys of the pass;
    KEYS: how many of them the first token sees before its own, at most all but the tokens of the
    pass. KEEP and those up to END: which key blocks stay, in passes of one token. END, GOING: see
    `chain.py`.
    """

    POSITION = 1
    TOKEN = 2
    READING = 3
    SLOT = 4
    KEYS = 5
    MORE = 6
    KEEP = 6
    END = 13
    GOING = 14


def token_registers(tokens: int) -> tuple[int, ...]:
    """The registers of the tokens of a pass, of up to 8."""
    assert tokens <= SELECTED
    return (Register.TOKEN, *range(Register.MORE, Register.MORE + tokens - 1))


def of_caches(decoder: DecoderState | None) -> tuple[Register, Register]:
    """The registers of where keys go, and of how many are seen: the position without a window."""
    if decoder is not None and decoder.window:
        return Register.SLOT, Register.KEYS
    return Register.POSITION, Register.POSITION


@dataclass(frozen=True)
class Entry:
    """The program of a pass of `tokens` tokens, of which the last `selected` go through the head.

    commands: 32 bytes each, with HALT. input, output: offsets in the IO region. by_token: the input
    is the rows of `token_registers`, and nothing is written to it. positions, estimates: of the
    cost model, cycles of a pass at some positions (second row: without the head). places,
    command_place: as in `Program`. attention: offset of the program's `sums`, if it has them.
    """

    tokens: int
    selected: int
    commands: np.ndarray
    input: int
    by_token: bool
    output: int
    positions: np.ndarray
    estimates: np.ndarray
    places: tuple[str, ...]
    command_place: np.ndarray
    attention: int | None = None

    @property
    def command_count(self) -> int:
        return len(self.commands) // COMMAND_BYTES

    def estimated_cycles(self, position: int, reading: bool = False) -> int:
        """Of a pass at a position; `reading`: without the head."""
        return round(np.interp(position, self.positions, self.estimates[int(reading)]))


@dataclass(frozen=True)
class Work:
    """What passes must do, without padding: bytes to read and products of two bytes.

    weight_bytes, head_bytes: once a pass, the latter if it does not only read; keys and values of
    memories are among the former. cache_bytes: for each position that a pass sees. token_products,
    head_products, pair_products: for each token, each token that goes through the head, and each
    pair of a token and a position that it sees.
    Numbers of 16 bits count as two bytes.
    """

    weight_bytes: int
    head_bytes: int
    cache_bytes: int
    token_products: int
    head_products: int
    pair_products: int

    def bytes_of(self, entry: Entry, position: int, reading: bool = False) -> int:
        """Bytes of weights, keys and values that a pass at a position must read. reading: without
        the head."""
        head = 0 if reading else self.head_bytes
        return self.weight_bytes + head + self.cache_bytes * (position + entry.tokens)

    def products_of(self, entry: Entry, position: int, reading: bool = False) -> int:
        """Products of two bytes in a pass at a position."""
        pairs = entry.tokens * position + entry.tokens * (entry.tokens + 1) // 2
        head = 0 if reading else self.head_products * entry.selected
        return self.token_products * entry.tokens + head + self.pair_products * pairs


@dataclass(frozen=True)
class Sums:
    """Softmax weights of a pass, summed up over layers and key/value heads: INT16, [heads, tokens,
    width].

    heads: query heads that share keys. width: columns of a row. columns: that of each slot.
    """

    heads: int
    width: int
    columns: np.ndarray


@dataclass(frozen=True)
class DecoderProgram:
    """See the module.

    Attributes
    ----------
    config: the machine. constants: shared by all entries. workspace_bytes: of one sequence, the
    first `cache_bytes` of them its keys and values; io_bytes: of any entry. entries: by number of
    tokens, 1 among them. graph: inputs and state of the decoder, without the operations between.
    order: token of each machine index; embedding: offset of their embedding rows in the constants,
    words (word of a row, machine index), None if rows depend on the position: then the graph has
    the tables. prefix_image: what a new
    sequence's workspace holds, (offset, bytes). work: what its passes must do. memories: where
    caches that hold a memory have it. sums: of the attention to each key, if those of least
    attention go first.
    """

    config: AcceleratorConfig
    constants: np.ndarray
    workspace_bytes: int
    cache_bytes: int
    io_bytes: int
    entries: dict[int, Entry]
    graph: QuantGraph
    order: np.ndarray
    embedding: int | None
    prefix_image: tuple[tuple[int, np.ndarray], ...]
    work: Work
    memories: dict[str, tuple[Planes, ...]] = dataclasses.field(default_factory=dict)
    sums: Sums | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """By name; entries, work and memories as fields of theirs, for files."""
        entries = [dict(_fields(entry)) for entry in self.entries.values()]
        memories = planes_record(self.memories)
        sums = None if self.sums is None else dict(_fields(self.sums))
        work = dict(_fields(self.work))
        of_parts = {"entries": entries, "work": work, "memories": memories, "sums": sums}
        return dict(_fields(self)) | of_parts

    def to_bytes(self) -> bytes:
        """Content of a program file."""
        return decoder_bytes(self.fields)

    def save(self, path: str | Path) -> None:
        """Write a program file; it appears whole or not at all. Raises `OSError`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> DecoderProgram:
        """Read a program file. Raises `ProgramError` for anything else."""
        return cls.of_fields(read_decoder(Path(path)))

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> DecoderProgram:
        """From `fields`."""
        entries = [Entry(**entry) for entry in fields["entries"]]
        sums = fields.get("sums")
        of_parts = {
            "entries": {entry.tokens: entry for entry in entries},
            "work": Work(**fields["work"]),
            "memories": planes_of(fields.get("memories", {})),
            "sums": None if sums is None else Sums(**sums),
        }
        return cls(**{**fields, **of_parts})

    def memory_image(
        self, given: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> list[tuple[int, np.ndarray]]:
        """What a sequence's workspace holds of its memories, (offset, bytes): of real keys and
        values [rows, kv_heads*dim], by cache. Raises `InputError` for others."""
        wanted = self.state.memories
        if set(given) != set(wanted):
            raise InputError(
                f"memories are needed for {', '.join(wanted) or 'no cache'}, got "
                f"{', '.join(given) or 'none'}"
            )
        parts: list[tuple[int, np.ndarray]] = []
        for name, memory in wanted.items():
            integers = memory_integers(memory, *given[name])
            parts += plane_images(self.config, self.memories[name], *integers)
        return parts

    @property
    def context(self) -> int:
        """Positions that a sequence may have."""
        assert self.graph.decoder is not None
        return self.graph.decoder.context

    @property
    def state(self) -> DecoderState:
        """What sequences are."""
        assert self.graph.decoder is not None
        return self.graph.decoder

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens with which every sequence begins."""
        assert self.graph.decoder is not None
        return self.graph.decoder.prefix

    @functools.cached_property
    def _index(self) -> np.ndarray:
        """Machine index of each token."""
        index = np.zeros(self.vocabulary, np.int64)
        valid = self.order >= 0
        index[self.order[valid]] = np.flatnonzero(valid)
        return index

    @property
    def vocabulary(self) -> int:
        """Tokens that a pass may take."""
        tables = [op.tables[0] for op in self.graph.ops if isinstance(op, QuantInput) and op.tables]
        return len(tables[0]) if tables else int(self.order.max()) + 1

    def check(self, position: int, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Token numbers that may follow `position` tokens. Raises `InputError`."""
        return check_tokens(ids, self.vocabulary, position, self.context)

    def index_of(self, token: int) -> int:
        """The machine index of a token."""
        return int(self._index[token])

    def encode(self, position: int, tokens: np.ndarray) -> np.ndarray:
        """Bytes of the input of a pass at `position`: the embedding rows of its tokens."""
        (op,) = (op for op in self.graph.ops if isinstance(op, QuantInput))
        tensor = self.graph.tensors[op.out]
        layout = layout_of(self.config, tensor.features)
        if self.embedding is not None:
            size = layout.groups * len(self.order) * self.config.residual_pitch
            table = self.constants[self.embedding : self.embedding + size]
            words = table.reshape(layout.groups, len(self.order), -1)
            return words[:, self._index[tokens]].swapaxes(0, 1).ravel()
        positions = position + np.arange(len(tokens))
        total = np.zeros((len(tokens), tensor.features), np.int64)
        for table, index in zip(op.tables, op.source, strict=True):
            total += table[tokens if isinstance(index, str) else index[positions]]
        if op.constant is not None:
            total += op.constant[positions]
        return pack_tensor(self.config, saturate(total, tensor.bits), layout, Form.S)

    def key_slots(self) -> KeySlots:
        """Where a new sequence has its keys."""
        return KeySlots(self.state)

    def registers(self, position: int, ids: np.ndarray, reading: bool, slot: int) -> dict[int, int]:
        """What the registers hold in front of a pass. reading: without the head. slot: of the key
        of its first token."""
        found: dict[int, int] = {Register.POSITION: position, Register.READING: int(reading)}
        if self.entries[len(ids)].by_token:
            found |= zip(token_registers(len(ids)), self._index[ids].tolist(), strict=True)
        if self.state.window:
            found[Register.SLOT] = slot
            found[Register.KEYS] = min(position, self.state.slots - len(ids))
        return found

    def needed_bytes(self, tokens: int, position: int, reading: bool = False) -> int:
        """Bytes of weights, keys and values that a pass at a position must read. reading: without
        the head."""
        seen = min(position, self.state.slots - tokens)
        return self.work.bytes_of(self.entries[tokens], seen, reading)

    @property
    def output_bytes(self) -> int:
        """Bytes of the selection of one row, of blocks with even or odd numbers."""
        return selection_words(self.config) * self.config.residual_pitch

    def attention_bytes(self, entry: Entry) -> int:
        """Bytes of the sums of a pass."""
        return 0 if self.sums is None else 2 * self.sums.heads * entry.tokens * self.sums.width

    def attention(self, entry: Entry, data: np.ndarray) -> np.ndarray:
        """Softmax weights of each token of a pass for each slot, over all heads, [tokens, slots]:
        from the bytes at the entry's `attention`."""
        assert self.sums is not None
        rows = data.view("<i2").reshape(self.sums.heads, entry.tokens, -1)
        return rows[..., self.sums.columns].astype(np.int64).sum(axis=0)

    def decode(self, entry: Entry, data: np.ndarray) -> Selection:
        """What the head selected, from the bytes at the entry's output."""
        halves = data.view("<i2").reshape(2, entry.selected, -1).astype(np.int64)
        words = (halves[..., 0::2] & 0xFFFF) | halves[..., 1::2] << 16
        last = (len(self.order) // HEAD_BLOCK - 1) % 2
        places = words[last, :, : 2 * SELECTED].reshape(entry.selected, SELECTED, 2)
        octave = words[..., 2 * SELECTED]
        low, high = words[..., 2 * SELECTED + 1] & 0xFFFFFFFF, words[..., 2 * SELECTED + 2]
        return Selection(places[..., 0], places[..., 1], octave.T, (low | high << 32).T)


def _fields(value: DecoderProgram | Entry | Work | Sums) -> Iterator[tuple[str, Any]]:
    return ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))


def work_of(graph: QuantGraph) -> Work:
    """The work of a decoder's passes."""
    weights, products, cached, pairs, head = 0, 0, 0, 0, 0
    for op in graph.ops:
        if isinstance(op, QuantLinear | QuantGated):
            size = op.weight.size if isinstance(op, QuantLinear) else op.gate.size + op.up.size
            weights += round(size * op.format.bits_per_weight / 8)
            products += graph.tensors[op.x].bits // 8 * size
        elif isinstance(op, QuantCachedAttention):
            dim = graph.tensors[op.q].features // op.heads
            of_key, of_pair = 3 * op.kv_heads * dim, (4 + 1) * op.heads * dim
            memory = graph.decoder.caches[op.cache].memory if graph.decoder else None
            if memory is None:
                cached, pairs = cached + of_key, pairs + of_pair
            else:
                weights, products = weights + memory.rows * of_key, products + memory.rows * of_pair
        elif isinstance(op, QuantHead):
            head = op.weight.shape[1] * int((op.shift > 0).sum())
    return Work(weights, head, cached, products, 2 * head, pairs)


def graph_of_host(graph: QuantGraph, tables: bool) -> QuantGraph:
    """What the host needs of a decoder's graph. tables: those of embeddings, too."""
    inputs = [op for op in graph.ops if isinstance(op, QuantInput)]
    if not tables:
        inputs = [dataclasses.replace(op, tables=(), source=()) for op in inputs]
    names = {op.out for op in inputs}
    return QuantGraph(
        batch=1,
        tokens=graph.tokens,
        inputs=list(graph.inputs),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in names},
        ops=list(inputs),
        decoder=graph.decoder,
    )
