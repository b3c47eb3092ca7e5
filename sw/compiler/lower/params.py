"""Parameters of the vector unit's affine stages: in the constants, and on chip when needed."""

from __future__ import annotations

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import GELU_FRACTION_BITS, Function, Memory
from hw.vector.golden import Affine
from sw.compiler.lower.context import Context
from sw.compiler.stream.layout import even_split, pack_affine

__all__ = ["Params", "keep_if_room", "param_parts"]

_ZERO_OF_GELU = -8 << GELU_FRACTION_BITS
ZERO_OF: dict[Function, int] = {
    Function.GELU_ERF: _ZERO_OF_GELU,
    Function.GELU_TANH: _ZERO_OF_GELU,
    Function.SILU: 2 * _ZERO_OF_GELU,
}
"""Where a function is 0, if not at 0: GELU of 0 is -1 unit, and norms sum lanes of padding too."""


class Params:
    """One affine stage of one operation.

    Parameters
    ----------
    memory: PARAM0 or PARAM1. p: one record per feature. order: feature of each lane, in the
    order of the commands' groups. function: what follows it; lanes of padding are 0 behind it.

    Members
    -------
    whole: all groups are loaded at the first use and stay; else each use loads its part.
    same: the one group is that of all groups.
    """

    def __init__(
        self,
        context: Context,
        memory: Memory,
        p: Affine,
        order: np.ndarray,
        features: int,
        function: Function = Function.NONE,
    ):
        self.context = context
        self.memory = memory
        self.groups = len(order) // context.config.lanes
        self.offset = context.constants.add(
            pack_affine(p, order, features, ZERO_OF.get(function, 0))
        )
        self.whole = self.same = False
        self._whole: int | None = None
        self._part: int | None = None

    @classmethod
    def of_all(cls, context: Context, memory: Memory, p: Affine) -> Params:
        """One record for all features: a single group."""
        lanes = context.config.lanes
        params = cls(context, memory, p, np.zeros(lanes, np.int64), 1)
        params.same = True
        return params

    def free_all(self) -> None:
        """End of the use of all groups."""
        if self._whole is not None:
            self.context.params[self.memory].give_back(self._whole)
            self._whole = None

    def get(self, first: int, count: int) -> int:
        """Address of group `first`, with `count` groups loaded from there."""
        if self.same:
            first, count = 0, 1
        if self.whole:
            if self._whole is None:
                self._whole = self.context.load_params(self.memory, self.offset, self.groups)
            return self._whole + first
        pitch = self.context.config.param_pitch
        count = min(count, self.groups - first)
        self._part = self.context.load_params(self.memory, self.offset + first * pitch, count)
        return self._part

    def done(self) -> None:
        """End of the use of what `get` returned."""
        if self._part is not None:
            self.context.params[self.memory].give_back(self._part)
            self._part = None


def keep_if_room(params: list[Params], words: int) -> None:
    """Keep whole stages on chip while they leave room to prefetch the next operation's."""
    used = {Memory.PARAM0: 0, Memory.PARAM1: 0}
    for item in params:
        if used[item.memory] + item.groups <= words // 2:
            used[item.memory] += item.groups
            item.whole = True


def param_parts(c: AcceleratorConfig, params: list[Params], panels: int) -> list[tuple[int, int]]:
    """Split panels of R features so that the parameters of a part fit beside what is loaded."""
    if all(item.whole for item in params):
        return [(0, panels)]
    return even_split(panels, max(1, c.param_words // 4 // c.groups_per_row_panel))
