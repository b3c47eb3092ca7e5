"""What the stages of one quantisation share: the graph as far as it is built, and its values.

Both graphs are executed on the calibration data as they go, the float one when a stage asks for a
value, the integer one as soon as an operation is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float_op
from sw.compiler.graph.operations import (
    FloatGraph,
    FloatLayerNorm,
    FloatLinear,
    QuantGraph,
    QuantInput,
    QuantOp,
    Tensor,
    operands,
)
from sw.compiler.graph.reference import run_reference_op
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.given import take_levels
from sw.compiler.quantise.halves import halved_values
from sw.compiler.quantise.named import formats_by_name
from sw.compiler.quantise.names import narrow_name, value_name, wide_name
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.quantise.ranges import Range
from sw.compiler.quantise.stages import LinearStage, legalise, plan_stages
from sw.compiler.quantise.weights import Inputs

__all__ = ["State"]

EPSILON_LIMIT = (1 << 32) - 1


class State:
    """One quantisation.

    Members
    -------
    float_graph: legalised. plan: its stages. by_name: its operations. stage_of: the stage of each
    linear, by its name. levels: given ones, by value. halved: values read as two bytes.
    floats, integers: values on the calibration rows, [rows, features]; `rows` says what they are,
    `seen` which of them no mask hides. graph: the quantised one. ranges: of the INT8 tensors, by
    value. operands: of the queries and keys of each attention. shared: a value, and what the
    linears behind it see of it.
    """

    def __init__(
        self, graph: FloatGraph, calibration: Sequence[object], options: QuantOptions
    ) -> None:
        graph, self.levels = take_levels(graph)
        self.float_graph = legalise(graph)
        self.options = options
        self.plan = plan_stages(self.float_graph)
        feeds, self.rows = calibration_rows(graph, calibration)
        self.floats = dict(feeds)
        self.integers = dict(feeds)
        self.formats = formats_by_name(self.float_graph, options.formats)
        self.halved = halved_values(self.plan, self.formats, self.levels)
        self.by_name = {op.name: op for op in self.float_graph.ops}
        self.graph = QuantGraph(graph.batch, graph.tokens, graph.inputs, host=graph.host)
        self.seen = self._visible_rows(feeds)
        self.ranges: dict[str, Range] = {}
        self.operands: dict[str, dict[str, Range]] = {}
        self.shared: tuple[str, Inputs] | None = None
        self.stage_of = {s.linear.name: s for s in self.plan.stages if isinstance(s, LinearStage)}
        self._last_use = self._last_uses()

    def _visible_rows(self, feeds) -> np.ndarray | slice:
        masks = [item.name for item in self.graph.feeds if item.kind == "mask"]
        for name in masks:
            self.emit(QuantInput(name, "mask", (name,)))
        seen = np.any([feeds[name] for name in masks], axis=0)
        return np.flatnonzero(seen) if masks and not seen.all() else slice(None)

    # --- execution ----------------------------------------------------------------------------

    def _last_uses(self) -> dict[str, int]:
        """Number of the last stage that looks at a float value; all its forms may go then."""
        last: dict[str, int] = {}
        for number, stage in enumerate(self.plan.stages):
            names = [stage.out]
            if isinstance(stage, LinearStage):
                names += [stage.linear.x, *([stage.residual] if stage.residual else [])]
            else:
                names += [n for n in operands(stage.op)]
            last.update(dict.fromkeys(names, number))
        last.update({item.name: len(self.plan.stages) for item in self.graph.feeds})
        return last

    def forget(self, number: int) -> None:
        """Drop what no stage after this one looks at."""
        for store in (self.floats, self.integers):
            for name in list(store):
                if self._last_use.get(value_name(name), -1) <= number:
                    del store[name]

    def float_value(self, name: str) -> np.ndarray:
        """Float result `name` on the calibration rows, computed when first asked for."""
        if name not in self.floats:
            op = self.by_name[name]
            for source in operands(op):
                self.float_value(source)
            value = run_float_op(op, self.floats, self.rows)
            if not np.isfinite(value).all():
                raise CompileError(
                    f"the calibration data makes NaN or infinity at {op.place or name}: give "
                    "batches of real inputs"
                )
            self.floats[name] = value
        return self.floats[name]

    def visible(self, name: str) -> np.ndarray:
        """The rows of `float_value` that no mask hides."""
        return self.float_value(name)[self.seen]

    def emit(self, op: QuantOp) -> None:
        """Append an operation and execute it on the calibration data."""
        self.graph.ops.append(op)
        self.integers.update(run_reference_op(op, self.graph, self.integers, self.rows))

    # --- tensors ------------------------------------------------------------------------------

    def is_wide(self, value: str) -> bool:
        return value in self.plan.wide

    def is_narrow(self, value: str) -> bool:
        return value in self.plan.narrow

    def wide_scale(self, value: str) -> float:
        return float(self.graph.tensors[wide_name(value)].scale)

    def add_wide(self, value: str, exponent: int | None = None, at_least: int = -30) -> float:
        """Declare the INT16 tensor of a value; its scale is a power of two."""
        data = self.visible(value)
        if exponent is None:
            reach = max(float(np.abs(data).max()) * self.options.margin, 2.0**-24)
            exponent = max(int(np.ceil(np.log2(reach / 32767))), at_least)
            for op in self.float_graph.ops:
                if isinstance(op, FloatLayerNorm) and op.x == value:
                    while op.epsilon * data.shape[1] ** 2 * 4.0**-exponent > EPSILON_LIMIT:
                        exponent += 1
        scale = 2.0**exponent
        self.graph.tensors[wide_name(value)] = Tensor(
            wide_name(value), 16, data.shape[1], np.array(scale), np.array(0.0)
        )
        return scale

    def add_narrow(self, value: str, chosen: Range, heads: int = 0) -> None:
        """Declare the INT8 tensor of a value."""
        self.ranges[value] = chosen
        self.graph.tensors[narrow_name(value)] = Tensor(
            narrow_name(value), 8, len(chosen.scale), chosen.scale, chosen.centre, heads
        )

    def format_of(self, linear: FloatLinear) -> WeightFormat:
        """How the weights of a linear are stored."""
        return self.formats.get(linear.name, DENSE).stored
