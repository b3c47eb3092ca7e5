"""Fake quantisation in an exported graph: weights and activations whose levels training chose.

The steps of a weight travel with it through constant operations (views, masks) to the linear that
reads it. Of an activation the importer makes a `FloatQuantise`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.builder import GraphBuilder
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.symbolic import VIEWS, Activation
from sw.compiler.graph.operations import FloatQuantise

__all__ = ["OPERATIONS", "FakeQuantisation"]

aten = torch.ops.aten

SINGLE = (
    aten.fake_quantize_per_tensor_affine.default,
    aten.fake_quantize_per_tensor_affine.tensor_qparams,
)
CHANNELS = aten.fake_quantize_per_channel_affine.default
OPERATIONS = {*SINGLE, CHANNELS}
FACTORS = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar}
INT8 = {torch.int8, torch.uint8}


@dataclass(frozen=True)
class Levels:
    """`scale * (clamp(round(x / scale) + zero_point, lowest, highest) - zero_point)`.

    scale, zero_point: one number, or one for each place along `axis`.
    """

    scale: Tensor
    zero_point: Tensor
    lowest: int
    highest: int
    axis: int | None = None

    @classmethod
    def of(cls, target: object, args: tuple) -> Levels:
        """Levels of one of `OPERATIONS` with these arguments, the operand first."""
        if target is CHANNELS:
            _, scale, zero, axis, lowest, highest = args
            return cls(scale, zero, lowest, highest, axis)
        _, scale, zero, lowest, highest = args
        return cls(torch.as_tensor(scale), torch.as_tensor(zero), lowest, highest)

    @property
    def is_symmetric_int8(self) -> bool:
        """Whether integers are INT8 and real 0 is integer 0: what weights need."""
        return not self.zero_point.any() and self.lowest >= -128 and self.highest <= 127

    def apply(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(fake-quantised weight, the step of each of its elements)."""
        scale = self.scale.detach().float()
        if self.axis is not None and scale.numel() > 1:
            shape = [1] * weight.dim()
            shape[self.axis] = -1
            scale = scale.reshape(shape)
        integers = torch.clamp(torch.round(weight / scale), self.lowest, self.highest)
        return integers * scale, scale.expand_as(weight).clone()


def _is_int8(value: object, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.dtype in INT8 and value.shape == shape


class FakeQuantisation:
    """What is known of fake quantisation: steps of constants, by node.

    builder: takes the levels of activations. values: of all nodes so far.
    """

    def __init__(self, builder: GraphBuilder, values: dict[torch.fx.Node, object]) -> None:
        self.builder = builder
        self.values = values
        self.steps: dict[torch.fx.Node, Tensor | None] = {}
        """A step for each element; None: lost in an operation that may change the levels."""

    def constant(self, node: torch.fx.Node, args: tuple) -> Tensor:
        """Value of a fake-quantised weight."""
        levels = Levels.of(node.target, args)
        if not levels.is_symmetric_int8:
            raise refuse(node, "weights must be INT8 with zero points of 0")
        value, self.steps[node] = levels.apply(args[0])
        return value

    def carry(self, node: torch.fx.Node, value: object) -> None:
        """Note the steps of a constant operation's result.

        Integers get some where they become real numbers; a view's move along, factors multiply
        them, what is masked keeps its own.
        """
        if self._dequantise(node, value):
            return
        sources = [n for n in node.all_input_nodes if n in self.steps]
        if not sources:
            return
        alone = isinstance(value, Tensor) and len(sources) == 1
        steps = self.steps[sources[0]] if alone else None
        if isinstance(value, Tensor) and steps is not None:
            if node.target in VIEWS:
                steps = self._run(node, sources[0], steps)
            elif steps.shape != value.shape:
                steps = None
            elif node.target in FACTORS:
                factor = self._run(node, sources[0], torch.ones_like(steps)).abs()
                steps = steps * torch.where(factor == 0, 1.0, factor)
        self.steps[node] = steps

    def _dequantise(self, node: torch.fx.Node, value: object) -> bool:
        """Whether the node gives INT8 integers steps; notes them, None if 0 does not stay 0."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() < 2:
            return False
        found = [n for n in node.all_input_nodes if _is_int8(self.values[n], value.shape)]
        if len(found) != 1:
            return False
        ones = torch.ones_like(self.values[found[0]])  # pyright: ignore
        offset = self._run(node, found[0], ones - ones)
        self.steps[node] = None if offset.any() else self._run(node, found[0], ones)
        return True

    def _run(self, node: torch.fx.Node, source: torch.fx.Node, value: Tensor) -> Tensor:
        """Execute a constant node with another value of `source`."""

        def known(item: torch.fx.Node) -> Any:
            return value if item is source else self.values[item]

        target: Any = node.target
        return target(*torch.fx.map_arg(node.args, known), **torch.fx.map_arg(node.kwargs, known))

    def steps_of(self, node: torch.fx.Node, weight: Tensor) -> np.ndarray | None:
        """Step of each output [N] of a linear's `weight` [N, K], if it is quantised already."""
        known = [n for n in node.all_input_nodes if n in self.steps]
        sources = [n for n in known if self.values[n].dim() >= 2]  # pyright: ignore
        if not sources:
            return None
        steps = self.steps[sources[-1]]
        if steps is not None:
            steps = steps.reshape(-1, *steps.shape[-2:])[0]
            steps = steps if node.target is aten.linear.default else steps.t()
            rows = steps[:, 0].double()
            integers = weight.double() / rows[:, None]
            exact = (integers - integers.round()).abs() < 1e-3
            fits = (integers.round() >= -128) & (integers.round() <= 127)
            one = steps == steps[:, :1]
            if bool((exact & fits & one).all()):
                return rows.numpy()
        raise refuse(
            node,
            "its quantised weights are not INT8 times one scale for each output: they change "
            "after their quantisation, or have zero points or scales along their inputs",
        )

    def activation(self, node: torch.fx.Node, value: Activation, levels: Levels) -> Activation:
        """The value with levels of its own."""
        if levels.axis is not None or levels.scale.numel() != 1:
            raise refuse(node, "activations must have one scale")
        span = levels.highest - levels.lowest
        if span > 255:
            raise refuse(node, f"activations have 8 bits, not {span + 1} levels")
        zero = int(levels.zero_point) - levels.lowest - 128
        scale, place = float(levels.scale), place_of(node)
        op = FloatQuantise(node.name, value.name, scale, zero, span - 128, place)
        return replace(value, name=self.builder.put(op))
