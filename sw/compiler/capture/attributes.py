"""Plain attributes that a module's forward changes: counters, caches, values kept for next time.

Tracing runs forward once and puts the attributes back, so nothing in the exported program shows
that a second call would have seen other ones. Where any changed, a second trace, with the
attributes as the first left them, shows whether it matters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from sw.compiler.errors import CompileError

__all__ = ["export_once"]


class _Same:
    """Equal to itself only, whatever the value says about `==`."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # pyright: ignore


def _seen(value: object) -> object:
    """What shows that a value is another one afterwards."""
    if isinstance(value, list | tuple):
        return [_seen(item) for item in value]
    if isinstance(value, dict):
        return [(key, _seen(item)) for key, item in value.items()]
    return value if isinstance(value, bool | int | float | str | None) else _Same(value)


def _second(value: object) -> object:
    """The value for a second call; tensors of a trace have no numbers, so zeros stand for them."""
    if isinstance(value, Tensor):
        return torch.zeros(value.shape, dtype=value.dtype)
    return value


def export_once(module: nn.Module, export: Callable[[], ExportedProgram]) -> ExportedProgram:
    """What `export` makes of `module`, a private copy.

    Raises `CompileError` where a second call would compute something else than the first.
    """
    before: dict[tuple[nn.Module, str], object] = {}
    changed: dict[tuple[nn.Module, str], object] = {}

    def attributes() -> dict[tuple[nn.Module, str], object]:
        return {
            (part, name): value
            for part in module.modules()
            for name, value in vars(part).items()
            if not name.startswith("_")
        }

    def remember(*_) -> None:
        before.update({key: _seen(value) for key, value in attributes().items()})

    def compare(*_) -> None:
        for key, value in attributes().items():
            if key not in before or before[key] != _seen(value):
                changed[key] = value if isinstance(value, Tensor) else copy.copy(value)

    hooks = module.register_forward_pre_hook(remember), module.register_forward_hook(compare)
    program = export()
    for hook in hooks:
        hook.remove()
    if changed:
        for (part, name), value in changed.items():
            setattr(part, name, _second(value))
        tensors = {name for (_, name), value in changed.items() if isinstance(value, Tensor)}
        read = {name.rpartition(".")[2] for name in program.constants}
        if tensors & read or str(export().graph) != str(program.graph):
            names = ", ".join(sorted({repr(name) for _, name in changed}))
            raise CompileError(
                f"the forward of {type(module).__name__} changes {names} and computes something "
                "else in its next call: give it as an input"
            )
    return program
