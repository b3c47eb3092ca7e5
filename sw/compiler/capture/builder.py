"""Building a float graph: operations with folding of constants into their producers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.adapters import merge_adapters
from sw.compiler.capture.symbolic import Activation, split_rows
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLayerNorm,
    FloatLinear,
    FloatOp,
    operands,
)

__all__ = ["GraphBuilder"]


def _array(tensor: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(tensor, Tensor):
        tensor = tensor.detach().to(torch.float32).cpu().numpy()
    return np.array(tensor, dtype=np.float32)


class GraphBuilder:
    """Float operations by name, in order. Every operation is immutable; folding a constant into
    a producer makes a new operation, and what nobody reads is dropped at the end."""

    def __init__(self) -> None:
        self.ops: dict[str, FloatOp] = {}
        self.shape: tuple[int, int] | None = None
        self.settled = False
        self._taken: set[str] = set()
        self._closed: dict[str, str] = {}

    @property
    def batch(self) -> int:
        assert self.shape is not None
        return self.shape[0]

    @property
    def tokens(self) -> int:
        assert self.shape is not None
        return self.shape[1]

    def set_shape(self, batch: int, tokens: int, name: str) -> None:
        """Fix batch and tokens, or check that input `name` agrees with them."""
        if self.shape is None:
            self.shape = (batch, tokens)
        elif self.shape != (batch, tokens):
            raise CompileError(
                f"input {name!r} has batch x tokens = {batch} x {tokens}, "
                f"an earlier one {self.shape[0]} x {self.shape[1]}"
            )

    def replace_shape(self, source: str, tokens: int) -> None:
        """Give sequences another length; the graph may read no input so far from now on."""
        self.shape = (self.batch, tokens)
        for name, op in self.ops.items():
            if isinstance(op, FloatInput):
                self._closed.setdefault(name, f"constant rows are joined to {source!r} only")
        self._closed[source] = "it is used with and without constant rows joined to it"

    def settle(self, tokens: int) -> None:
        """Take the sequence length that attention shows, unless it is known already.

        A float input [tokens, 1, features] (batch second) looks like many short sequences.
        """
        rows = self.batch * self.tokens
        if not self.settled and rows % tokens == 0:
            self.shape = (rows // tokens, tokens)
            for name, op in self.ops.items():  # constants so far are the same for all tokens
                if isinstance(op, FloatEmbedding) and op.constant is not None:
                    constant = np.tile(op.constant[:1], (tokens, 1))
                    self.ops[name] = replace(op, constant=constant)
        self.settled = True

    def fresh(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate

    def put(self, op: FloatOp) -> str:
        """Append under a fresh name; returns the name."""
        name = self.fresh(op.name)
        self.ops[name] = replace(op, name=name)
        return name

    # --- folding ------------------------------------------------------------------------------

    def columns(self, name: str, columns: Tensor, features: int, place: str) -> str | None:
        """The value made of these columns of `name`; None if it is not a linear's result, nor a
        function of one."""
        if torch.equal(columns, torch.arange(features)):
            return name
        op = self.ops[name]
        if isinstance(op, FloatActivation):
            x = self.columns(op.x, columns, features, op.place)
            return None if x is None else self.put(replace(op, x=x))
        if not isinstance(op, FloatLinear):
            return None
        take = columns.numpy()
        bias = None if op.bias is None else op.bias[take]
        steps = None if op.steps is None else op.steps[take]
        return self.put(replace(op, weight=op.weight[take], bias=bias, place=place, steps=steps))

    def rows(self, value: Activation, place: str) -> tuple[Activation, Tensor] | None:
        """(value with all its features in order, its row numbers), or None."""
        split = split_rows(value)
        if split is None:
            return None
        rows, columns = split
        name = self.columns(value.name, columns, value.features, place)
        if name is None:
            return None
        width = columns.numel()
        index = (rows[:, None] * width + torch.arange(width)).reshape(value.index.shape)
        return Activation(name, width, index), rows

    def part(self, value: Activation, place: str) -> Activation | None:
        """The value as all elements, in any order, of the linear that makes only its features."""
        rows, columns = value.index // value.features, value.index % value.features
        used = torch.unique(columns)
        if len(used) * self.batch * self.tokens != value.index.numel():
            return None
        name = self.columns(value.name, used, value.features, place)
        if name is None:
            return None
        index = rows * len(used) + torch.searchsorted(used, columns.contiguous())
        return Activation(name, len(used), index, value.taken)

    def _spread(self, value: Activation, constant: Tensor) -> np.ndarray | None:
        """Constant per element, brought to the matrix layout [batch, tokens, features]."""
        count = self.batch * self.tokens * value.features
        try:
            wide = constant.detach().to(torch.float32).expand(value.index.shape)
        except RuntimeError:
            return None
        flat = value.index.reshape(-1)
        if flat.numel() != count or not torch.equal(flat.sort().values, torch.arange(count)):
            return None
        result = torch.empty(count)
        result[flat] = wide.reshape(-1)
        return result.reshape(self.batch, self.tokens, value.features).numpy()

    def add_constant(self, value: Activation, constant: Tensor, place: str) -> Activation | None:
        """`value + constant` folded into the producer, or None; of a part, as in `scale`."""
        value = self.part(value, place) or value
        wide = self._spread(value, constant)
        if wide is None or (wide != wide[:1]).any():
            return None
        op, table = self.ops[value.name], wide[0]
        self.settled |= bool((table != table[:1]).any())
        if isinstance(op, FloatAdd):
            return self._add_behind(value, op, constant, place)
        if isinstance(op, FloatInput | FloatEmbedding):
            if isinstance(op, FloatInput):
                op = FloatEmbedding(f"{op.name}_sum", (), (), None, op.name, place)
            before = 0.0 if op.constant is None else op.constant
            return replace(value, name=self.put(replace(op, constant=before + table)))
        if (table != table[:1]).any():
            return self._add_by_token(value, op, table, place)
        if isinstance(op, FloatLinear):
            bias = table[0] if op.bias is None else op.bias + table[0]
            return replace(value, name=self.put(replace(op, bias=bias)))
        if isinstance(op, FloatLayerNorm) and not op.rms:
            return replace(value, name=self.put(replace(op, bias=op.bias + table[0])))
        return None

    def _add_by_token(
        self, value: Activation, op: FloatOp, table: np.ndarray, place: str
    ) -> Activation | None:
        """A constant for each token, added to a function of a linear: it is a value of its own."""
        if not isinstance(op, FloatActivation):
            return None
        constant = self.put(FloatEmbedding(f"{op.name}_constant", (), (), table, None, place))
        return replace(value, name=self.put(FloatAdd(f"{op.name}_sum", op.name, constant, place)))

    def _add_behind(
        self, value: Activation, op: FloatAdd, constant: Tensor, place: str
    ) -> Activation | None:
        """A constant added to a sum, folded into whichever operand takes it."""
        for name, other in ((op.y, op.x), (op.x, op.y)):
            if isinstance(self.ops[name], FloatEmbedding | FloatLinear):
                part = self.add_constant(replace(value, name=name), constant, place)
                if part is not None:
                    return replace(value, name=self.put(replace(op, x=other, y=part.name)))
        return None

    def scale(self, value: Activation, factor: Tensor, place: str) -> Activation | None:
        """`value * factor` (constant per feature) folded into the producer, or None.

        Of a part of a linear's features, such as the Q of a fused projection, the part is made a
        linear of its own.
        """
        value = self.part(value, place) or value
        wide = self._spread(value, factor)
        if wide is None or (wide != wide[:1, :1]).any():
            return None
        op, row = self.ops[value.name], wide[0, 0]
        if isinstance(op, FloatLinear):
            bias = None if op.bias is None else op.bias * row
            steps = None if op.steps is None else op.steps * row
            op = replace(op, weight=op.weight * row[:, None], bias=bias, steps=steps)
        elif isinstance(op, FloatLayerNorm):
            heads = row.reshape(op.heads or 1, -1)
            if (heads != heads[0]).any():
                return None
            op = replace(op, gain=op.gain * heads[0], bias=op.bias * heads[0])
        elif isinstance(op, FloatEmbedding) and op.source is None:
            constant = None if op.constant is None else op.constant * row
            op = replace(op, tables=tuple(t * row for t in op.tables), constant=constant)
        else:
            return None
        return replace(value, name=self.put(op))

    def merge_embeddings(self, a: str, b: str) -> str | None:
        """Sum of two embeddings (or an input and an embedding) as one, or None."""
        first, second = self.ops[a], self.ops[b]
        pair = []
        for op in (first, second):
            if isinstance(op, FloatInput):
                op = FloatEmbedding(f"{op.name}_sum", (), (), None, op.name)
            if not isinstance(op, FloatEmbedding):
                return None
            pair.append(op)
        x, y = pair
        if x.source is not None and y.source is not None:
            return None
        if x.constant is None or y.constant is None:
            constant = y.constant if x.constant is None else x.constant
        else:
            constant = x.constant + y.constant
        return self.put(
            FloatEmbedding(
                x.name if x.tables else y.name,
                x.tables + y.tables,
                x.indices + y.indices,
                constant,
                x.source or y.source,
                x.place or y.place,
            )
        )

    def linear(
        self,
        value: Activation,
        weight: Tensor,
        bias: Tensor | None,
        name: str,
        place: str,
        steps: np.ndarray | None = None,
    ) -> Activation | None:
        """`value @ weight.T + bias` over the last dimension, for any order of rows."""
        split = split_rows(value)
        if split is None or split[1].numel() != weight.shape[1]:
            return None
        rows, columns = split
        matrix = _array(weight)
        if not torch.equal(columns, torch.arange(value.features)):
            full = np.zeros((matrix.shape[0], value.features), np.float32)
            np.add.at(full.T, columns.numpy(), matrix.T)
            matrix = full
        offset = None if bias is None else _array(bias)
        result = self.put(FloatLinear(name, value.name, matrix, offset, place, steps))
        width = matrix.shape[0]
        shape = (*value.index.shape[:-1], width)
        return Activation(
            result, width, (rows[:, None] * width + torch.arange(width)).reshape(shape)
        )

    # --- finish -------------------------------------------------------------------------------

    def finish(self, outputs: list[tuple[str, tuple[int, ...]]]) -> FloatGraph:
        """The graph of what `outputs` need; inputs stay even when nobody reads them."""
        needed = {name for name, _ in outputs}
        kept: list[FloatOp] = []
        for op in reversed(list(self.ops.values())):
            if op.name in needed or isinstance(op, FloatInput):
                kept.append(op)
                needed.update(operands(op))
        for name, reason in self._closed.items():
            if name in needed:
                raise CompileError(f"input {name!r}: {reason}")
        ops = merge_adapters(kept[::-1], [name for name, _ in outputs])
        return FloatGraph(self.batch, self.tokens, ops, outputs)
