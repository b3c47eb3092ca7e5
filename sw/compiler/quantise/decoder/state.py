"""What the stages of a decoder's quantisation share: the graph as far as it is built, its values.

Both graphs are executed on the calibration sequences as they go: the float one when a stage asks
for a value, the integer one as soon as an operation is fixed. Positions of the prefix are in the
float values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.decoder import Pass, memory_integers, new_state
from sw.compiler.graph.float_executor import run_float_op
from sw.compiler.graph.operations import (
    DecoderState,
    FloatAttention,
    FloatGraph,
    FloatLinear,
    QuantCachedAttention,
    QuantGraph,
    QuantHead,
    QuantOp,
    Tensor,
    operands,
)
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise.decoder.options import DecoderOptions
from sw.compiler.quantise.decoder.plan import Stage, plan_decoder
from sw.compiler.quantise.decoder.rotation import rotated_graph
from sw.compiler.quantise.gptq import Factor
from sw.compiler.quantise.names import value_name, wide_name

__all__ = ["OPERAND_LEVELS", "STREAM_LEVELS", "Operand", "State"]

STREAM_LEVELS = (1 << 15) - 1
OPERAND_LEVELS = (1 << 15) - 129
"""The largest value of two signed bytes, see `hw.vector.golden.to_bytes`."""


@dataclass(frozen=True)
class Operand:
    """What linears read, on the calibration rows.

    unit, centre: [K], real values of the integers 1 and 0. mean: [K], of the integers; real_mean:
    of the float values. factor: of the integers, for GPTQ, with or without their mean.
    """

    unit: np.ndarray
    centre: np.ndarray
    mean: np.ndarray
    real_mean: np.ndarray
    factor: Factor


class State:
    """One quantisation.

    Members
    -------
    float_graph, stages: its plan. graph: the quantised one. rows: of all sequences; `seen`: those
    behind the prefix, which the integers have.
    """

    def __init__(
        self,
        graph: FloatGraph,
        calibration: Sequence[Sequence[int]],
        context: int,
        prefix: tuple[int, ...],
        options: DecoderOptions,
        memories: Sequence[np.ndarray] = (),
    ) -> None:
        if options.rotate:
            graph = rotated_graph(graph, context)
        self.float_graph, self.options = graph, options
        self.stages: list[Stage] = plan_decoder(graph, context)
        sequences = [np.asarray(ids, dtype=np.int64) for ids in calibration]
        _check(sequences, context, prefix)
        self.rows = Rows(tuple(map(len, sequences)))
        self.seen = np.flatnonzero(self.rows.positions >= len(prefix))
        self.graph = QuantGraph(1, 1, graph.inputs, decoder=DecoderState(context, prefix))
        self.decoder = self.graph.decoder
        self._floats = {graph.inputs[0].name: np.concatenate(sequences)}
        self._floats |= _memory(graph, memories, len(sequences))
        self.memory_rows = len(memories[0]) if memories else 0
        self._remembered: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._by_name = {op.name: op for op in graph.ops}
        begin = new_state(self.graph)
        self._passes = [Pass(self.graph, begin, ids[len(prefix) :]) for ids in sequences]
        self._operands: dict[str, Operand] = {}
        self._last_use = {
            name: number
            for number, stage in enumerate(self.stages)
            for op in stage.ops
            for name in (*operands(op), op.name)
        }

    # --- execution --------------------------------------------------------------------------------

    def float_value(self, name: str) -> np.ndarray:
        """Float result `name` on all rows, computed when first asked for."""
        if name not in self._floats:
            op = self._by_name[name]
            for source in operands(op):
                self.float_value(source)
            value = run_float_op(op, self._floats, self.rows)
            if not np.isfinite(value).all():
                raise CompileError(f"the calibration data makes NaN or infinity at {op.place}")
            self._floats[name] = value
        return self._floats[name]

    def seen_value(self, name: str) -> np.ndarray:
        """`float_value` without the rows of the prefix."""
        return self.float_value(name)[self.seen]

    def prefix_value(self, name: str) -> np.ndarray:
        """`float_value` at the positions of the prefix, which are the same in every sequence."""
        assert self.decoder is not None
        return self.float_value(name)[: len(self.decoder.prefix)]

    def integers(self, tensor: str) -> np.ndarray:
        """Integers of a tensor on the rows that are seen."""
        return np.concatenate([work.values[tensor] for work in self._passes])

    def emit(self, op: QuantOp) -> None:
        """Append an operation and execute it on the calibration sequences."""
        self.graph.ops.append(op)
        if isinstance(op, QuantHead):
            return  # nothing is calibrated on logits
        for number, work in enumerate(self._passes):
            if isinstance(op, QuantCachedAttention):
                work.state = new_state(self.graph)
                if op.cache in self._remembered:
                    work.state.remember(op.cache, *self._remembered[op.cache][number])
            work.execute(op)

    def remember(self, cache: str, keys: np.ndarray, values: np.ndarray) -> None:
        """Give all sequences the real keys and values of their memories, one after another."""
        memory, count = self.graph.decoder.memories[cache], len(self._passes)  # pyright: ignore
        parts = zip(np.split(keys, count), np.split(values, count), strict=True)
        self._remembered = {cache: [memory_integers(memory, k, v) for k, v in parts]}

    def forget(self, number: int) -> None:
        """Drop what no stage after this one looks at."""
        for store in (self._floats, self._operands, *(work.values for work in self._passes)):
            for name in list(store):
                if self._last_use.get(value_name(name), -1) <= number:
                    del store[name]

    # --- what another process goes on with -------------------------------------------------------

    @property
    def resumable(self) -> bool:
        """Whether `remains` is all: statistics are taken anew only where none were kept."""
        return not self._operands

    @property
    def remains(self) -> tuple[QuantGraph, dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """The graph, float values and integers of each sequence that later stages look at."""
        return self.graph, self._floats, [work.values for work in self._passes]

    def resume(
        self,
        graph: QuantGraph,
        floats: dict[str, np.ndarray],
        integers: list[dict[str, np.ndarray]],
    ) -> None:
        """Take over what `remains` was."""
        self.graph, self.decoder, self._floats = graph, graph.decoder, floats
        begin = new_state(graph)
        self._passes = [Pass(graph, begin, work.ids) for work in self._passes]
        for work, values in zip(self._passes, integers, strict=True):
            work.values = values

    # --- tensors ----------------------------------------------------------------------------------

    def add_tensor(self, name: str, bits: int, unit: np.ndarray, centre: np.ndarray) -> str:
        """Declare a tensor of which linears or attentions read; unit, centre: [features]."""
        self.graph.tensors[name] = Tensor(name, bits, len(unit), unit, centre)
        return name

    def add_stream(self, value: str, exponent: int, name: str = "") -> str:
        """Declare the tensor of a value of the residual stream, in units of 2^exponent."""
        name, features = name or wide_name(value), self.float_value(value).shape[1]
        unit = np.array(2.0**exponent)
        self.graph.tensors[name] = Tensor(name, 16, features, unit, np.array(0.0))
        return name

    def add_operand(
        self,
        name: str,
        unit: np.ndarray | float,
        centre: np.ndarray | float = 0.0,
        bits: int = 16,
    ) -> str:
        """Declare what linears read."""
        shape = (self.float_value(name).shape[1],)
        return self.add_tensor(
            name, bits, np.broadcast_to(unit, shape), np.broadcast_to(centre, shape)
        )

    # --- formats ----------------------------------------------------------------------------------

    def weight_format(self, operand: str) -> WeightFormat:
        """Format of the linears that read a value.

        In an attention's result the words of heads take turns: features share scales in a word
        only, and not even there if heads are no whole tiles.
        """
        format, op = self.options.weights, self._by_name[operand]
        if not (format.scaled and isinstance(op, FloatAttention)):
            return format
        dim = self.float_value(operand).shape[1] // op.heads
        whole = dim % format.tile == 0 and format.group % format.tile == 0
        return replace(format, group=format.tile) if whole else DENSE

    def reach(self, name: str) -> float:
        """Largest magnitude of a value, but for the rarest rows."""
        rows = np.sort(np.abs(self.seen_value(name)).max(axis=1))
        return max(float(rows[-1 - int(len(rows) * self.options.rare)]), 1e-6)

    def reach_unit(self, name: str) -> float:
        """Unit of 16-bit integers that hold a value with a margin."""
        return self.reach(name) * self.options.margin / OPERAND_LEVELS

    def readers(self, name: str) -> list[FloatLinear]:
        """Linears that read a value."""
        ops = self.float_graph.ops
        return [op for op in ops if isinstance(op, FloatLinear) and op.x == name]

    def exponent(self, tensor: str) -> int:
        """Binary logarithm of the stream's unit."""
        return round(np.log2(float(self.graph.tensors[tensor].scale)))

    def stream(self, value: str) -> str:
        """The tensor of a value of the residual stream."""
        return wide_name(value)

    # --- what linears read ------------------------------------------------------------------------

    def operand(self, name: str, *, centred: bool = True) -> Operand:
        """Statistics of what linears read. centred: the bias takes up its mean."""
        if name not in self._operands:
            tensor = self.graph.tensors[name]
            x = self.integers(name).astype(np.float32)
            mean = x.mean(axis=0, dtype=np.float64)
            if centred and self.options.bias_correction:
                x -= mean.astype(np.float32)
            if self.options.gptq:
                factor = Factor.of(x.T @ x, self.options.damping)
            else:
                identity = np.eye(len(mean))
                factor = Factor(np.arange(len(mean)), identity)
            self._operands[name] = Operand(
                tensor.scale,
                tensor.centre,
                mean,
                self.seen_value(name).mean(axis=0, dtype=np.float64),
                factor,
            )
        return self._operands[name]


def _memory(
    graph: FloatGraph, memories: Sequence[np.ndarray], sequences: int
) -> dict[str, np.ndarray]:
    """The value of the graph's second input, if it has one. Raises `CompileError`."""
    wanted = graph.inputs[1:]
    if len(memories) != (sequences if wanted else 0):
        raise CompileError(
            f"{sequences} calibration sequences need "
            f"{'a memory each' if wanted else 'no memories'}, got {len(memories)}"
        )
    if not wanted:
        return {}
    features = wanted[0].shape[-1]
    shapes = {memory.shape for memory in memories}
    if len(shapes) != 1 or any(len(s) != 2 or s[1] != features for s in shapes):
        raise CompileError(f"memories are [rows, {features}], all alike; got {sorted(shapes)}")
    return {wanted[0].name: np.concatenate(memories).astype(np.float32)}


def _check(sequences: list[np.ndarray], context: int, prefix: tuple[int, ...]) -> None:
    """Raise `CompileError` for calibration sequences that are none."""
    if not sequences:
        raise CompileError("calibration needs at least one sequence")
    for number, ids in enumerate(sequences):
        if ids.ndim != 1 or len(ids) <= len(prefix):
            raise CompileError(
                f"calibration sequence {number} is no list of more than {len(prefix)} token numbers"
            )
        if tuple(ids[: len(prefix)].tolist()) != prefix:
            raise CompileError(f"calibration sequence {number} does not begin with the prefix")
        if len(ids) > context:
            raise CompileError(
                f"calibration sequence {number} has {len(ids)} tokens, the context only {context}"
            )
