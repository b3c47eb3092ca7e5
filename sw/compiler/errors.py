"""Errors of the compiler and its programs that a user can cause and mend."""

from __future__ import annotations

__all__ = [
    "CalibrationWarning",
    "CompileError",
    "InputError",
    "ProgramError",
    "UnsupportedOperation",
    "UnsupportedOutputWarning",
    "first_line",
]


class CompileError(ValueError):
    """The module, its inputs or its calibration data cannot be compiled; the text says why."""


class InputError(ValueError):
    """Arrays given to a program do not fit it: number, shape, type, NaN, index out of range."""


class ProgramError(ValueError):
    """A program file that cannot be used, or a machine it was not compiled for."""


class UnsupportedOperation(CompileError):
    """The module uses an operation that the accelerator lacks.

    Attributes
    ----------
    operation: the first such operation, e.g. `aten.tanh.default`.
    place: where in the module it stands: module path, class, and source line.
    """

    def __init__(self, operation: str, place: str, reason: str = "") -> None:
        self.operation = operation
        self.place = place
        text = f"unsupported operation {operation} at {place or 'the top of the module'}"
        super().__init__(f"{text}: {reason}" if reason else text)


class CalibrationWarning(UserWarning):
    """The calibration data says little about other inputs; the text says what to give."""


class UnsupportedOutputWarning(UserWarning):
    """An output was left out because it needs an unsupported operation."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, without what it adds for its own developers."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)
