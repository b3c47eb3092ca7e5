"""Quantise stage by stage: ranges, weights and records from what the integers before give.

Every stage is executed in integers on the calibration data as soon as it is fixed, so the next
one is calibrated on the values it will really see, and compares with the float graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hw.isa import GELU_FRACTION_BITS, NORM_FRACTION_BITS, SCALE_FRACTION_BITS, Function
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float_op
from sw.compiler.graph.operations import (
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLinear,
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOp,
    QuantOutput,
    Tensor,
    operands,
)
from sw.compiler.graph.reference import from_integers, run_reference_op
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.attention import bias_units, operand_ranges, score_shifts
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.given import one_scale, take_levels
from sw.compiler.quantise.halves import (
    declare_halves,
    emit_passes,
    halved_values,
    input_integers,
)
from sw.compiler.quantise.named import formats_by_name
from sw.compiler.quantise.names import narrow_name, value_name, wide_name
from sw.compiler.quantise.options import Progress, QuantOptions
from sw.compiler.quantise.ranges import Range, search_range
from sw.compiler.quantise.stages import (
    AttentionStage,
    ElementStage,
    InputStage,
    LinearStage,
    NormStage,
    Stage,
    legalise,
    plan_stages,
)
from sw.compiler.quantise.weights import QuantisedWeight, quantise_weight

__all__ = ["Quantiser"]

LOWEST = {Function.RELU: 0.0, Function.GELU_ERF: -0.1702, Function.GELU_TANH: -0.1702}
"""Least value of each function."""
EPSILON_LIMIT = (1 << 32) - 1


class Quantiser:
    """State of one quantisation: the graph as far as it is built, and both executions of it."""

    def __init__(
        self,
        graph: FloatGraph,
        calibration: Sequence[object],
        options: QuantOptions,
        progress: Progress | None,
    ) -> None:
        graph, self.levels = take_levels(graph)
        self.float_graph = legalise(graph)
        self.options = options
        self.progress = progress
        self.plan = plan_stages(self.float_graph)
        feeds, self.rows = calibration_rows(graph, calibration)
        self.floats = dict(feeds)
        self.integers = dict(feeds)
        self.formats = formats_by_name(self.float_graph, options.formats)
        self.halved = halved_values(self.plan, self.formats, self.levels)
        self.by_name = {op.name: op for op in self.float_graph.ops}
        inputs = [op for op in graph.ops if isinstance(op, FloatInput)]
        self.graph = QuantGraph(graph.batch, graph.tokens, inputs)
        self.seen = self._visible_rows(feeds)
        self.ranges: dict[str, Range] = {}
        self.stage_of = {s.linear.name: s for s in self.plan.stages if isinstance(s, LinearStage)}
        self._last_use = self._last_uses()

    def _visible_rows(self, feeds) -> np.ndarray | slice:
        for item in self.graph.inputs:
            if item.kind == "mask":
                self.emit(QuantInput(item.name, "mask", (item.name,)))
                if not feeds[item.name].all():
                    return np.flatnonzero(feeds[item.name])
        return slice(None)

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
        last.update({item.name: len(self.plan.stages) for item in self.graph.inputs})
        return last

    def _forget(self, number: int) -> None:
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
            self.floats[name] = run_float_op(op, self.floats, self.rows)
        return self.floats[name]

    def emit(self, op: QuantOp) -> None:
        """Append an operation and execute it on the calibration data."""
        self.graph.ops.append(op)
        self.integers.update(run_reference_op(op, self.graph, self.integers, self.rows))

    def run(self) -> QuantGraph:
        count = len(self.plan.stages)
        for number, stage in enumerate(self.plan.stages):
            if self.progress is not None:
                self.progress(stage.out, number / count)
            self._stage(stage)
            self._forget(number)
        for name, shape in self.float_graph.outputs:
            tensor = wide_name(name) if name in self.plan.wide else narrow_name(name)
            self.graph.outputs.append(QuantOutput(tensor, shape))
        if self.progress is not None:
            self.progress("done", 1.0)
        return self.graph

    def _stage(self, stage: Stage) -> None:
        if isinstance(stage, InputStage):
            self._input(stage)
        elif isinstance(stage, LinearStage):
            self._linear(stage)
        elif isinstance(stage, ElementStage):
            self._element(stage)
        elif isinstance(stage, NormStage):
            self._norm(stage)
        else:
            self._attention(stage)

    # --- tensors ------------------------------------------------------------------------------

    def is_wide(self, value: str) -> bool:
        return value in self.plan.wide

    def is_narrow(self, value: str) -> bool:
        return value in self.plan.narrow

    def add_wide(self, value: str, exponent: int | None = None, at_least: int = -30) -> float:
        """Declare the INT16 tensor of a value; its scale is a power of two."""
        data = self.float_value(value)[self.seen]
        if exponent is None:
            reach = max(float(np.abs(data).max()) * self.options.margin, 2.0**-24)
            exponent = max(int(np.ceil(np.log2(reach / 32767))), at_least)
            for op in self.float_graph.ops:
                if getattr(op, "x", None) == value and hasattr(op, "epsilon"):
                    while op.epsilon * data.shape[1] ** 2 * 4.0**-exponent > EPSILON_LIMIT:  # pyright: ignore
                        exponent += 1
        scale = 2.0**exponent
        self.graph.tensors[wide_name(value)] = Tensor(
            wide_name(value), 16, data.shape[1], np.array(scale), np.array(0.0)
        )
        return scale

    def add_narrow(self, value: str, chosen: Range, heads: int = 0) -> Range:
        """Declare the INT8 tensor of a value."""
        self.ranges[value] = chosen
        self.graph.tensors[narrow_name(value)] = Tensor(
            narrow_name(value), 8, len(chosen.scale), chosen.scale, chosen.centre, heads
        )
        return chosen

    def site_range(self, value: str, extra: int = 0, lowest: float = -np.inf) -> Range:
        """Declare a linear input's INT8 tensor with the best range found.

        extra: how many copies of channels may be added. lowest: no value can be below.
        """
        readers = self.plan.narrow.get(value, [])
        weights = [(linear.weight, self.format_of(linear)) for linear in readers]
        data = self.float_value(value)[self.seen]
        if value in self.levels:
            given = self.levels[value]
            scale = np.full(data.shape[1], given.scale)
            return self.add_narrow(value, Range(scale, -scale * given.zero))
        if any(linear.steps is not None for linear in readers):
            return self.add_narrow(value, one_scale(data))
        row_weight = self.row_weight(readers[0]) if readers else np.ones(len(data))
        chosen = search_range(data, weights, row_weight, self.options, extra, lowest)
        return self.add_narrow(value, chosen)

    def row_weight(self, linear: FloatLinear) -> np.ndarray:
        """How much errors of this linear's result count, row by row.

        What is added to a residual stream is normalised later: a row of large variance hides
        its errors.
        """
        stage = self.stage_of[linear.name]
        if stage.residual is None:
            return np.ones(len(self.float_value(stage.out)[self.seen]))
        variance = self.float_value(stage.out)[self.seen].var(axis=1, dtype=np.float64)
        weight = 1 / np.maximum(variance, 1e-12)
        return weight / weight.mean()

    def wide_scale(self, value: str) -> float:
        return float(self.graph.tensors[wide_name(value)].scale)

    # --- stages -------------------------------------------------------------------------------

    def _input(self, stage: InputStage) -> None:
        op, value = stage.op, stage.out
        embedding = isinstance(op, FloatEmbedding)
        direct = not embedding or (op.constant is None and not op.tables)
        source = op.source if embedding else op.name
        if self.is_wide(value) or not direct:
            scale = self.add_wide(value)
            constant, tables, indices = None, (), ()
            if isinstance(op, FloatEmbedding):
                if op.source is not None and op.tables:
                    raise CompileError(f"a float input added to an embedding at {op.place}")
                tables = tuple(np.rint(t / scale).astype(np.int64) for t in op.tables)
                indices = op.indices
                if op.constant is not None:
                    constant = np.rint(op.constant / scale).astype(np.int64)
            kind = "float" if source is not None else "embedding"
            sources = (source,) if source is not None else indices
            out = wide_name(value)
            self.emit(QuantInput(out, kind, sources, tables, constant))
        if self.is_narrow(value):
            chosen = self.site_range(value)
            if direct:
                assert source is not None
                self.emit(QuantInput(narrow_name(value), "float", (source,)))
            else:
                first = make_affine(
                    self.wide_scale(value) / chosen.scale, -chosen.zero / chosen.scale, value
                )
                self.emit(QuantElementwise(wide_name(value), first, out8=narrow_name(value)))

    def _results(self, stage: Stage, unit: float | None) -> dict:
        """Declare both forms of a result; fields of the operation from a value of this unit.

        unit: real value of 1 before the second stage.
        """
        value, fields = stage.out, {}
        if self.is_wide(value):
            fields["out16"] = wide_name(value)
        if value in self.halved:
            fields |= declare_halves(self, value, unit)
        elif self.is_narrow(value):
            extra, function = 0, Function.NONE
            if isinstance(stage, LinearStage):
                function = stage.function
            elif isinstance(stage, ElementStage):
                function = stage.op.function
            lowest = LOWEST.get(function, -np.inf)
            if isinstance(stage, LinearStage) and stage.function and not self.is_wide(value):
                # Copies would pull the quads of a sparse reader apart.
                if not any(self.format_of(reader).sparse for reader in self.plan.narrow[value]):
                    extra = self.options.extra_channels(len(stage.linear.weight))
            chosen = self.site_range(value, extra, lowest)
            fields["out8"] = narrow_name(value)
            if unit is not None:
                fields["second"] = make_affine(
                    unit / chosen.scale, -chosen.zero / chosen.scale, value
                )
        return fields

    def _function_unit(self, stage: LinearStage | ElementStage, function: Function) -> float:
        """Real value of one unit at the function, declaring the INT16 result if there is one."""
        value = stage.out
        if function != Function.RELU:
            unit = 2.0**-GELU_FRACTION_BITS
            if self.is_wide(value):
                self.add_wide(value, -GELU_FRACTION_BITS)
            return unit
        if self.is_wide(value):
            return self.add_wide(value)
        reach = float(np.abs(self.float_value(value)[self.seen]).max())
        return 2.0 ** np.ceil(np.log2(max(reach, 2.0**-24) * self.options.margin / 2**17))

    def format_of(self, linear: FloatLinear) -> WeightFormat:
        """How the weights of a linear are stored."""
        return self.formats.get(linear.name, DENSE).stored

    def _weight(self, stage: LinearStage) -> QuantisedWeight:
        linear = stage.linear
        target, error = self.float_value(linear.x), None
        if stage.residual is not None:
            wide = wide_name(stage.residual)
            now = from_integers(self.integers[wide], self.graph.tensors[wide])
            error = (self.float_value(stage.residual) - now)[self.seen]
        return quantise_weight(
            linear,
            self.format_of(linear),
            self.ranges[linear.x],
            input_integers(self, linear.x)[self.seen],
            target[self.seen],
            error,
            self.row_weight(linear),
            self.options,
        )

    def _linear(self, stage: LinearStage) -> None:
        weight, value, x = self._weight(stage), stage.out, narrow_name(stage.linear.x)
        place = stage.linear.place
        if stage.role:
            chosen = operand_ranges(self, stage, weight)
            first = make_affine(
                weight.gain / chosen.scale, (weight.bias - chosen.zero) / chosen.scale, place
            )
            copied = self.ranges[stage.linear.x].copied
            self.emit(
                QuantLinear(
                    x,
                    weight.integers,
                    first,
                    out8=narrow_name(value),
                    place=place,
                    copied_inputs=copied,
                    format=self.format_of(stage.linear),
                    multipliers=weight.multipliers,
                )
            )
            return
        shift = 0
        if stage.function != Function.NONE:
            unit: float | None = self._function_unit(stage, stage.function)
        elif stage.residual is not None:
            before = round(np.log2(self.wide_scale(stage.residual)))
            unit = self.add_wide(value, at_least=before)
            shift = round(np.log2(unit)) - before
            if shift > 15:
                raise CompileError(f"residual operands differ by more than 2^15 at {place}")
        elif self.is_wide(value):
            unit = self.add_wide(value)
        else:
            unit = None
        fields = self._results(stage, unit)
        if unit is None:
            chosen = self.ranges[value]
            first = make_affine(
                weight.gain / chosen.scale, (weight.bias - chosen.zero) / chosen.scale, place
            )
        else:
            source = self.ranges[value].source if self.is_narrow(value) else None
            if source is not None:
                weight = weight.take(source)
            first = make_affine(weight.gain / unit, weight.bias / unit, place)
        residual = None if stage.residual is None else wide_name(stage.residual)
        op = QuantLinear(
            x,
            weight.integers,
            first,
            stage.function,
            residual,
            shift,
            place=place,
            copied_outputs=self.ranges[value].copied if value in self.ranges else 0,
            copied_inputs=self.ranges[stage.linear.x].copied,
            format=self.format_of(stage.linear),
            multipliers=weight.multipliers,
            **fields,
        )
        if stage.linear.x in self.halved:
            assert unit is not None
            emit_passes(self, op, stage, weight.gain / unit, weight.bias / unit)
        else:
            self.emit(op)

    def _element(self, stage: ElementStage) -> None:
        unit = self._function_unit(stage, stage.op.function)
        fields = self._results(stage, unit)
        before = self.wide_scale(stage.op.x)
        width = self.graph.tensors[wide_name(stage.op.x)].features
        first = make_affine(np.full(width, before / unit), 0.0, stage.op.place)
        self.emit(
            QuantElementwise(
                wide_name(stage.op.x), first, stage.op.function, place=stage.op.place, **fields
            )
        )

    def _norm(self, stage: NormStage) -> None:
        op, value, fields = stage.op, stage.out, {}
        one = 2.0**-NORM_FRACTION_BITS
        if self.is_wide(value):
            scale = self.add_wide(value)
            fields.update(
                out16=wide_name(value), to16=make_affine(op.gain * one / scale, op.bias / scale)
            )
        if self.is_narrow(value):
            chosen = self.site_range(value)
            fields.update(
                out8=narrow_name(value),
                to8=make_affine(
                    op.gain * one / chosen.scale, (op.bias - chosen.zero) / chosen.scale
                ),
            )
        features = len(op.gain)
        epsilon = op.epsilon * features**2 / self.wide_scale(op.x) ** 2
        self.emit(QuantNorm(wide_name(op.x), features, round(epsilon), place=op.place, **fields))

    def _attention(self, stage: AttentionStage) -> None:
        op, value = stage.op, stage.out
        v = self.graph.tensors[narrow_name(op.v)]
        chosen = self.site_range(value)
        unit = v.scale * 2.0**-SCALE_FRACTION_BITS
        second = make_affine(unit / chosen.scale, (v.centre - chosen.zero) / chosen.scale, op.place)
        self.emit(
            QuantAttention(
                narrow_name(op.q),
                narrow_name(op.k),
                narrow_name(op.v),
                op.heads,
                score_shifts(self, op),
                second,
                narrow_name(value),
                op.causal,
                op.mask,
                self.options.key_block,
                op.place,
                bias_units(op),
            )
        )
