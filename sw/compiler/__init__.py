"""From an ordinary PyTorch module to a program of the accelerator: `compile_module`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sw.compiler.compile import compile_module
    from sw.compiler.program.program import Program, ProgramError
    from sw.compiler.quantise import QuantOptions

__all__ = ["Program", "ProgramError", "QuantOptions", "compile_module"]

_HOMES = {
    "Program": "program.program",
    "ProgramError": "program.program",
    "QuantOptions": "quantise",
    "compile_module": "compile",
}


def __getattr__(name: str) -> Any:
    """Import on first use: PyTorch takes seconds, and running a program does not need it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
