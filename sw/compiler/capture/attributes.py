"""Plain attributes that a module's forward changes: counters, caches, values kept for next time.

Tracing runs forward once and puts the attributes back, so nothing in the exported program shows
that a second call would have seen other ones.
"""

from __future__ import annotations

import warnings

from torch import Tensor, nn
from torch.export import ExportedProgram

from sw.compiler.errors import CompileError

__all__ = ["check_attributes", "watch_attributes"]

SIMPLE = bool | int | float | str | None


def _seen(value: object) -> object:
    """What shows that a value is another one afterwards; it holds the value, so that no other can
    get its place in memory."""
    if isinstance(value, list | tuple | set):
        return type(value), [_seen(item) for item in value]
    if isinstance(value, dict):
        return dict, [(key, _seen(item)) for key, item in value.items()]
    return value if isinstance(value, SIMPLE) else _Same(value)


class _Same:
    """Equal to itself only, whatever the value says about `==`."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # pyright: ignore


def _attributes(module: nn.Module) -> dict[str, object]:
    return {
        f"{path}.{name}" if path else name: _seen(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if not name.startswith("_")
    }


def watch_attributes(module: nn.Module) -> dict[str, object]:
    """Names of attributes that the next call of `module`, a private copy, changes, with their
    values before; filled in by that call."""
    before: dict[str, object] = {}
    changed: dict[str, object] = {}

    def remember(*_) -> None:
        before.update(_attributes(module))

    def compare(*_) -> None:
        after = _attributes(module)
        changed.update({n: v for n, v in before.items() if n not in after or after[n] != v})

    module.register_forward_pre_hook(remember)
    module.register_forward_hook(compare)
    return changed


def check_attributes(changed: dict[str, object], program: ExportedProgram) -> None:
    """Refuse tensors that forward reads and replaces; warn of numbers and lists that it changes."""
    for name, value in changed.items():
        if isinstance(value, _Same) and isinstance(value.value, Tensor):
            if name in program.constants:
                raise CompileError(
                    f"the module's forward changes its attribute {name!r}, which a program cannot "
                    "keep: make it an input and an output"
                )
        else:
            warnings.warn(
                f"the module's forward changes its attribute {name!r}; the program computes as in "
                "the first call",
                UserWarning,
                5,
            )
