"""A compiled decoder: one program for each number of tokens of a pass, over the same constants.

A sequence lives in a workspace of its own, so several share a machine. The position of a pass is in a
register; the host writes embedding rows, starts an entry and reads what the head selected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, SELECTED
from hw.numerics import saturate
from sw.compiler.graph.decoder import HEAD_BLOCK, Selection, check_tokens, head_order
from sw.compiler.graph.operations import QuantGraph, QuantHead, QuantInput
from sw.compiler.stream.access import selection_words
from sw.compiler.stream.layout import Form, layout_of, pack_tensor

__all__ = ["DecoderProgram", "Entry"]


@dataclass(frozen=True)
class Entry:
    """The program of a pass of `tokens` tokens, of which the last `selected` go through the head.

    commands: 32 bytes each, with HALT. input, output: offsets in the IO region. estimated_cycles: at
    the end of a full context. weight_bytes: that it reads once.
    """

    tokens: int
    selected: int
    commands: np.ndarray
    input: int
    output: int
    estimated_cycles: int
    places: tuple[str, ...]
    command_place: np.ndarray

    @property
    def command_count(self) -> int:
        return len(self.commands) // COMMAND_BYTES


@dataclass(frozen=True)
class DecoderProgram:
    """See the module.

    Attributes
    ----------
    config: the machine. constants: shared by all entries. workspace_bytes: of one sequence;
    io_bytes: of any entry. entries: by number of tokens, 1 among them. graph: inputs and state of the
    decoder, without the operations between. order: token of each machine index. prefix_image: what
    a new sequence's workspace holds, (offset, bytes).
    """

    config: AcceleratorConfig
    constants: np.ndarray
    workspace_bytes: int
    io_bytes: int
    entries: dict[int, Entry]
    graph: QuantGraph
    order: np.ndarray
    prefix_image: tuple[tuple[int, np.ndarray], ...]

    @property
    def context(self) -> int:
        """Positions that a sequence may have."""
        assert self.graph.decoder is not None
        return self.graph.decoder.context

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens with which every sequence begins."""
        assert self.graph.decoder is not None
        return self.graph.decoder.prefix

    def encode(self, entry: Entry, position: int, ids: np.ndarray) -> np.ndarray:
        """Bytes of an entry's input: the embedding rows of tokens at `position`."""
        (op,) = (op for op in self.graph.ops if isinstance(op, QuantInput))
        tokens = check_tokens(self.graph, position, ids)
        positions = position + np.arange(len(tokens))
        total = np.zeros((len(tokens), op.tables[0].shape[1]), np.int64)
        for table, index in zip(op.tables, op.source, strict=True):
            total += table[tokens if isinstance(index, str) else index[positions]]
        if op.constant is not None:
            total += op.constant[positions]
        tensor = self.graph.tensors[op.out]
        rows = saturate(total, tensor.bits)
        return pack_tensor(self.config, rows, layout_of(self.config, tensor.features), Form.S)

    @property
    def output_bytes(self) -> int:
        """Bytes of the selection of one row, of blocks with even or odd numbers."""
        return selection_words(self.config) * self.config.residual_pitch

    def decode(self, entry: Entry, data: np.ndarray) -> Selection:
        """What the head selected, from the bytes at the entry's output."""
        halves = data.view("<i2").reshape(2, entry.selected, -1).astype(np.int64)
        words = (halves[..., 0::2] & 0xFFFF) | halves[..., 1::2] << 16
        last = (len(self.order) // HEAD_BLOCK - 1) % 2
        places = words[last, :, : 2 * SELECTED].reshape(entry.selected, SELECTED, 2)
        octave = words[..., 2 * SELECTED]
        low, high = words[..., 2 * SELECTED + 1] & 0xFFFFFFFF, words[..., 2 * SELECTED + 2]
        return Selection(places[..., 0], places[..., 1], octave.T, (low | high << 32).T)


def graph_of_host(graph: QuantGraph, head: QuantHead) -> QuantGraph:
    """What the host needs of a decoder's graph."""
    inputs = [op for op in graph.ops if isinstance(op, QuantInput)]
    names = {op.out for op in inputs}
    return QuantGraph(
        batch=1,
        tokens=graph.tokens,
        inputs=list(graph.inputs),
        tensors={name: tensor for name, tensor in graph.tensors.items() if name in names},
        ops=list(inputs),
        decoder=graph.decoder,
    )


def order_of(head: QuantHead) -> np.ndarray:
    """Token of each machine index, -1 where there is none."""
    return head_order(head)
