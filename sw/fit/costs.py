"""Predicted cycles of looking at a picture, for any view, without quantising or lowering it.

Products of linears and attentions follow from shapes, as for `weft tune`; what programs need
besides is a share of them, taken from one program that was lowered.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.tune.assign import Cost, linear_cost
from sw.compiler.tune.structured import attention_cycles
from sw.models import focus
from sw.models.focus_head import STAGES, corners, stage
from sw.models.merging import plan
from sw.models.view import HEAD, View

__all__ = ["Linear", "ViewCosts", "linears"]

_linear_cost = functools.cache(linear_cost)


@dataclass(frozen=True)
class Linear:
    """A linear of the model. stage: of the head, or None. layer: of the transformer; -1 in front
    of the first one."""

    place: str
    outputs: int
    inputs: int
    stage: int | None
    layer: int = -1

    def rows(self, view: View) -> int:
        """Rows that it reads of a picture."""
        if self.stage is not None:
            return corners(view.side, self.stage)
        return tokens_at(view, self.layer)


def tokens_at(view: View, layer: int) -> int:
    """Tokens that a layer reads."""
    return view.tokens - sum(n for behind, n in plan(view.merged).items() if behind < layer)


@functools.cache
def linears() -> tuple[Linear, ...]:
    """Of the transformer and of the head, in order; the convolution of patches is one."""
    parts = [(None, focus.load_backbone()), *((n, stage(n)) for n in range(STAGES))]
    found = []
    for number, part in parts:
        head = "" if number is None else f"{HEAD}{number}."
        for place, module in part.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                outputs, inputs = module.weight.flatten(1).shape
                layer = re.match(r"encoder\.layer\.(\d+)\.", place)
                layer = -1 if layer is None else int(layer[1])
                found.append(Linear(head + place, outputs, inputs, number, layer))
    return tuple(found)


class ViewCosts:
    """Predicted cost of views on one configuration.

    rest: cycles of a program for each cycle of its linears and attentions.
    """

    def __init__(self, config: AcceleratorConfig, rest: float = 1.0) -> None:
        self.config, self.rest = config, rest

    def linear(self, line: Linear, view: View, format: WeightFormat) -> Cost:
        found = _linear_cost(line.outputs, line.inputs, line.rows(view), format, self.config)
        return Cost(found.cycles * self.rest, found.bytes)

    def total(self, view: View, formats: Mapping[str, WeightFormat] | None = None) -> Cost:
        """Of one picture; formats: in place of the view's."""
        formats = view.formats if formats is None else formats
        total = Cost(0, 0)
        for line in linears():
            total += self.linear(line, view, formats.get(line.place, DENSE))
        shape: Any = focus.load_backbone().config
        heads = shape.num_attention_heads
        for layer in range(shape.num_hidden_layers):
            tokens = tokens_at(view, layer)
            dim = shape.hidden_size // heads
            cycles = attention_cycles(heads, dim, tokens, tokens, self.config)
            total += Cost(cycles * self.rest, 0)
        return total
