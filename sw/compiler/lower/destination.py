"""A destination of INT8 results: the resident tensor itself, or a buffer and its store to DRAM."""

from __future__ import annotations

from dataclasses import dataclass

from hw.isa import Memory, Opcode
from sw.compiler.lower.caches import append
from sw.compiler.lower.context import Context, Value
from sw.compiler.stream.layout import Form

__all__ = ["Bytes"]


@dataclass(frozen=True)
class Bytes:
    """A destination of a vector command, INT8 or 16 bits in two bytes: `fields` for the command,
    then `store`."""

    context: Context
    value: Value
    form: Form
    panels: tuple[int, int]
    rows: tuple[int, int]
    address: int
    stride: int
    staged: bool
    step: int = 1

    @classmethod
    def take(
        cls,
        context: Context,
        value: Value,
        form: Form,
        panels: tuple[int, int],
        rows: tuple[int, int],
        step: int = 1,
    ) -> Bytes:
        """Panels (first, count) of these rows, every `step`-th: in the resident tensor, or in a
        new buffer."""
        first, count = (value.words(form) * n for n in rows)
        if form in value.chip:
            stride = value.stride if form == Form.A else value.rows
            address = value.chip[form] + panels[0] * stride + first
            return cls(context, value, form, panels, rows, address, step * stride, False, step)
        address = context.staging_pool(form).take(panels[1] * count)
        return cls(context, value, form, panels, rows, address, count, True, step)

    @property
    def fields(self) -> dict[str, int]:
        return {
            "dst_memory": Memory.ACTIVATION if self.form == Form.A else Memory.WEIGHT,
            "dst_by_column": int(self.form == Form.V),
            "dst_address": self.address,
            "dst_stride": self.stride,
        } | ({"wide": 1} if self.value.words(self.form) == 2 else {})

    def store(self) -> None:
        """To DRAM, if the tensor is kept there; the buffer is free for later commands."""
        if self.value.cache is not None:
            append(self.context, self.value, self.panels, self.rows, self.address, self.stride)
        elif self.form in self.value.dram:
            self.context.move_panels(
                Opcode.STORE,
                self.value,
                self.form,
                self.panels,
                self.rows,
                self.address,
                self.stride,
                step=self.step,
            )
        if self.staged:
            self.context.staging_pool(self.form).give_back(self.address)
