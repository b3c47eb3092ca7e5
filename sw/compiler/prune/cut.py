"""Cut a float graph: shapes shrink, and every linear from the first cut on is fitted again.

The original and what has been cut so far run side by side on calibration data. A linear's weights
then minimise the squared distance of its results to the original's, from the inputs that it now
has; where it adds to a residual stream, the distance of the sum. The bias takes up the means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sw.compiler.graph.float_executor import run_float_op
from sw.compiler.graph.operations import (
    FloatAdd,
    FloatAttention,
    FloatGraph,
    FloatInput,
    FloatLinear,
    FloatOp,
    operands,
)
from sw.compiler.graph.rows import Feeds, Rows
from sw.compiler.prune.blocks import Block, Cuts, check_cuts, find_blocks
from sw.compiler.prune.order import Moments, check_method, refitted, removal_order
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.gptq import damped
from sw.compiler.quantise.named import sites

__all__ = ["Kept", "PruneOptions", "Survey", "cut_graph", "float_values", "shape_only", "survey"]

Progress = Callable[[float], None]
"""Called with the part that is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """How to choose what is cut, and how the rest makes up for it.

    Attributes
    ----------
    method: measure of what is cut first; see `sw/compiler/prune/order.py`.
    least_squares: fit the linears to the original's results. Without it a linear that loses inputs
        gets the method's own compensation: "obs" moves the weights left and the bias, "flap" the
        bias alone, "magnitude" nothing.
    damping: of the inputs' covariance for "obs", as a fraction of its mean diagonal.
    fit_damping: the same for least squares, which then stays nearer to the weights given.
    """

    method: str = "obs"
    least_squares: bool = True
    damping: float = 0.01
    fit_damping: float = 0.3

    def __post_init__(self) -> None:
        check_method(self.method)


@dataclass(frozen=True)
class Kept:
    """What is left of a block. groups: their numbers, rising. columns: of the reader, likewise."""

    groups: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Survey:
    """What the float model says about each block, by name.

    orders: groups, first to go first. moments: of the reader's inputs.
    """

    blocks: tuple[Block, ...]
    orders: Mapping[str, np.ndarray]
    moments: Mapping[str, Moments]

    def kept(self, block: Block, left: int) -> Kept:
        """The `left` groups that would go last."""
        groups = np.sort(self.orders[block.name][block.groups - left :])
        return Kept(groups, block.channels(groups))


def float_values(
    ops: Sequence[FloatOp], feeds: Feeds, rows: Rows
) -> Iterator[tuple[FloatOp, Feeds]]:
    """Each operation with all values that are still needed, its result among them."""
    last: dict[str, int] = {}
    for number, op in enumerate(ops):
        last[op.name] = number
        last.update(dict.fromkeys(operands(op), number))
    values = dict(feeds)
    with torch.no_grad():
        for number, op in enumerate(ops):
            if not isinstance(op, FloatInput):
                values[op.name] = run_float_op(op, values, rows)
            yield op, values
            for name in {op.name, *operands(op)}:
                if last[name] == number:
                    values.pop(name, None)


def survey(
    graph: FloatGraph,
    calibration: Sequence[object],
    options: PruneOptions | None = None,
    progress: Progress = lambda _done: None,
) -> Survey:
    """Orders and moments of all blocks, from batches of module inputs."""
    options = options or PruneOptions()
    blocks = find_blocks(graph)
    readers = {block.reader: block for block in blocks}
    orders, moments = {}, {}
    feeds, rows = calibration_rows(graph, calibration)
    for op, values in float_values(graph.ops, feeds, rows):
        block = readers.get(op.name)
        if block is None or not isinstance(op, FloatLinear):
            continue
        progress(len(orders) / len(blocks))
        found = moments[block.name] = Moments.of(values[op.x])
        orders[block.name] = removal_order(
            op.weight, found, block.groups, options.method, options.damping
        )
    return Survey(tuple(blocks), orders, moments)


def shrunk(block: Block, kept: Kept, op: FloatOp) -> FloatOp:
    """An operation of the block without what is cut, nothing made up for."""
    if op.name == block.attention:
        assert isinstance(op, FloatAttention)
        bias = op.bias
        if bias is not None and len(bias) > 1:
            bias = bias[kept.groups]
        return replace(op, heads=len(kept.groups), bias=bias)
    if not isinstance(op, FloatLinear):
        return op
    if op.name == block.reader:
        return replace(op, weight=np.ascontiguousarray(op.weight[:, kept.columns]))
    bias = None if op.bias is None else op.bias[kept.columns]
    return replace(op, weight=np.ascontiguousarray(op.weight[kept.columns]), bias=bias)


def shape_only(graph: FloatGraph, blocks: Sequence[Block], cuts: Cuts) -> FloatGraph:
    """`graph` with the shapes that it has after these cuts: of each block its first groups."""
    by_op: dict[str | None, tuple[Block, Kept]] = {}
    for block in blocks:
        groups = np.arange(cuts.get(block.name, block.groups))
        kept = Kept(groups, block.channels(groups))
        for name in (block.reader, *block.writers, block.attention):
            by_op[name] = block, kept
    ops = [shrunk(*by_op[op.name], op) if op.name in by_op else op for op in graph.ops]
    return replace(graph, ops=ops)


def compensated(
    op: FloatLinear, kept: Kept, moments: Moments, options: PruneOptions
) -> FloatLinear:
    """The reader `op` [N, K] without what is cut, by the method's own compensation."""
    weight = op.weight[:, kept.columns].astype(np.float64)
    if options.method == "obs":
        weight = refitted(op.weight, moments, kept.columns, options.damping)
    if options.method == "magnitude":
        return _with(op, weight, op.bias)
    moved = op.weight @ moments.mean - weight @ moments.mean[kept.columns]
    return _with(op, weight, moved if op.bias is None else op.bias + moved)


def _with(op: FloatLinear, weight: np.ndarray, bias: np.ndarray | None) -> FloatLinear:
    bias = None if bias is None else bias.astype(np.float32)
    return replace(op, weight=weight.astype(np.float32), bias=bias)


def cut_graph(
    graph: FloatGraph,
    cuts: Cuts,
    calibration: Sequence[object],
    options: PruneOptions | None = None,
    *,
    surveyed: Survey | None = None,
    progress: Progress = lambda _done: None,
) -> FloatGraph:
    """`graph` with only so many heads and channels left in its blocks.

    calibration: batches of module inputs, a few thousand rows. surveyed: see `survey`, of the same
    graph, batches and options.

    Raises `CompileError` for a block that there is not, or that would keep none or too many.
    """
    options = options or PruneOptions()
    check_cuts(find_blocks(graph), cuts)
    surveyed = surveyed or survey(graph, calibration, options, lambda done: progress(done / 2))
    kept = {
        block.name: surveyed.kept(block, cuts[block.name])
        for block in surveyed.blocks
        if cuts.get(block.name, block.groups) < block.groups
    }
    if not kept:
        return graph
    run = _Fit(graph, surveyed, kept, options)
    feeds, rows = calibration_rows(graph, calibration)
    return replace(graph, ops=run.ops(feeds, rows, lambda done: progress(0.5 + done / 2)))


class _Fit:
    """The original's operations in order, each cut and fitted.

    kept: what is left, by block that loses something.
    """

    def __init__(
        self, graph: FloatGraph, surveyed: Survey, kept: Mapping[str, Kept], options: PruneOptions
    ) -> None:
        self.graph, self.surveyed, self.kept, self.options = graph, surveyed, kept, options
        self.blocks: dict[str, Block] = {}
        for block in surveyed.blocks:
            if block.name in kept:
                names = (block.reader, *block.writers, block.attention)
                self.blocks.update({name: block for name in names if name is not None})
        self.residual: dict[str, str] = {}
        readers = [name for op in graph.ops for name in operands(op)]
        for op in graph.ops:
            if isinstance(op, FloatAdd):
                for name, other in ((op.x, op.y), (op.y, op.x)):
                    if readers.count(name) == 1:
                        self.residual[name] = other
        self.free = {
            op.name
            for linears in sites(graph).values()
            if len({op.x for op in linears}) == 1  # not one module that is called several times
            for op in linears
            if op.steps is None
        }

    def ops(self, feeds: Feeds, rows: Rows, progress: Progress) -> list[FloatOp]:
        """The new operations, in order."""
        values, found = dict(feeds), []
        self.touched: set[str] = set()
        for number, (op, original) in enumerate(float_values(self.graph.ops, feeds, rows)):
            progress(number / len(self.graph.ops))
            new = op
            if op.name not in original:  # an input that the host alone reads
                pass
            elif op.name not in self.blocks and not self.touched & set(operands(op)):
                values[op.name] = original[op.name]
            else:
                new = self._changed(op, values, original)
                self.touched.add(op.name)
                values[op.name] = run_float_op(new, values, rows)
            found.append(new)
            for name in values.keys() - original.keys():
                del values[name]  # nothing reads them any more
        return found

    def _changed(self, op: FloatOp, values: Feeds, original: Feeds) -> FloatOp:
        block = self.blocks.get(op.name)
        new, goal = op, original[op.name]
        if block is not None:
            kept = self.kept[block.name]
            new = shrunk(block, kept, op)
            if op.name in block.writers:
                goal = goal[:, kept.columns]
            elif isinstance(op, FloatLinear):
                new = compensated(op, kept, self.surveyed.moments[block.name], self.options)
        if not isinstance(op, FloatLinear) or not isinstance(new, FloatLinear):
            return new
        other = self.residual.get(op.name, "")
        same = self.touched.isdisjoint((op.x, other))
        if same or not self.options.least_squares or op.name not in self.free:
            return new
        if other in self.touched:
            goal = goal + (original[other] - values[other])
        return _fitted(new, values[op.x], goal, self.options.fit_damping)


def _fitted(op: FloatLinear, x: np.ndarray, goal: np.ndarray, damping: float) -> FloatLinear:
    """`op` [N, K] with the weights of least squares from `x` [rows, K] to `goal` [rows, N]."""
    moments = Moments.of(x)
    mean = goal.mean(axis=0, dtype=np.float64)
    deviations = x - moments.mean.astype(np.float32)
    wanted = (deviations.T @ (goal - mean.astype(np.float32))).astype(np.float64)
    whole = damped(moments.covariance, damping)
    added = whole[0, 0] - moments.covariance[0, 0]
    weight = np.linalg.solve(whole, wanted + added * op.weight.T).T
    return _with(op, weight, mean - weight @ moments.mean)
