"""From an ordinary PyTorch module to a program of the accelerator: `compile_module`, and for causal
language models `compile_decoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sw.compiler.compile import compile_decoder, compile_encoder_decoder, compile_module
    from sw.compiler.program.decoder_program import DecoderProgram
    from sw.compiler.program.joint import JointProgram
    from sw.compiler.program.program import Program, ProgramError
    from sw.compiler.quantise import QuantOptions

__all__ = [
    "DecoderProgram",
    "JointProgram",
    "Program",
    "ProgramError",
    "QuantOptions",
    "compile_decoder",
    "compile_encoder_decoder",
    "compile_module",
]

_HOMES = {
    "DecoderProgram": "program.decoder_program",
    "JointProgram": "program.joint",
    "Program": "program.program",
    "ProgramError": "program.program",
    "QuantOptions": "quantise",
    "compile_decoder": "compile",
    "compile_encoder_decoder": "compile",
    "compile_module": "compile",
}


def __getattr__(name: str) -> Any:
    """Import on first use: PyTorch takes seconds, and running a program does not need it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
