"""MODEL as the commands take it: what stands behind the name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from sw.cli.common import load_exported
from sw.compiler.errors import CompileError, InputError
from sw.compiler.program.array_file import read_array

__all__ = ["MINILM", "MODEL_HELP", "load_model"]

MINILM = "all-MiniLM-L6-v2"
MODEL_HELP = """
    MODEL is `all-MiniLM-L6-v2` (with --tokens), a file saved by `torch.export.save` (.pt2) with
    its calibration data (--calibration, a .npy file with a batch per entry), or `FILE.py:NAME`
    or `PACKAGE.MODULE:NAME`, a function that returns (module, example_inputs, calibration).
    """


def _from_function(spec: str) -> tuple[Any, Any, Any]:
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise CompileError(f"model file {place} does not exist")
        found = importlib.util.spec_from_file_location("weft_user_model", place)
        assert found is not None
        module = importlib.util.module_from_spec(found)
        # Not by the loader, which leaves bytecode beside the file, cut off where the disk is full.
        exec(compile(Path(place).read_bytes(), place, "exec"), module.__dict__)
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise CompileError(f"model {spec!r}: cannot import {place} ({error})") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise CompileError(f"model {spec!r}: {place} has no function {name}")
    result = function()
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise CompileError(
            f"model {spec!r} must return (module, example_inputs) or "
            f"(module, example_inputs, calibration)"
        )
    module, example, *rest = result
    return module, example, rest[0] if rest else None


def load_model(model: str, calibration: str | None) -> tuple[Any, Any, list[Any] | None]:
    """(module, example inputs, calibration batches or None) of a MODEL other than MiniLM.

    calibration: .npy file with the batches of a .pt2 file. Raises `CompileError`, `InputError`.
    """
    if model.endswith(".pt2"):
        exported = load_exported(model)
        args, kwargs = exported.example_inputs or ((), {})
        batches = None if calibration is None else read_array(calibration, "calibration")
        if batches is not None and batches.ndim == 0:
            raise InputError(f"calibration {calibration} is a single number, not batches")
        return exported, args or kwargs, batches if batches is None else list(batches)
    if ":" in model:
        return _from_function(model)
    raise CompileError(f"unknown model {model!r}: give {MINILM}, a .pt2 file, or FILE.py:FUNCTION")
