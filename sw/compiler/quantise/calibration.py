"""Calibration data: batches of module inputs to rows of real sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.operations import FloatGraph, FloatInput
from sw.compiler.graph.rows import Feeds, Rows, as_array

__all__ = ["calibration_rows"]


def _sequences(value: np.ndarray, item: FloatInput) -> np.ndarray:
    """[batch, tokens] or [batch, tokens, features]; a missing batch dimension is added."""
    value = value[None] if value.ndim < 2 + (item.kind == "float") else value
    if value.ndim != 2 + (item.kind == "float"):
        raise CompileError(f"calibration input {item.name!r} has shape {value.shape}")
    if item.kind == "float" and value.shape[-1] != item.shape[-1]:
        raise CompileError(
            f"calibration input {item.name!r} has {value.shape[-1]} features, not {item.shape[-1]}"
        )
    return value


def calibration_rows(graph: FloatGraph, batches: Sequence[object]) -> tuple[Feeds, Rows]:
    """Inputs of all sequences, one row for each token, padding removed.

    Each batch has the module's inputs (tuple, mapping, or a single array) for any number of
    sequences no longer than the graph's. What a key mask hides at the end of a sequence is
    dropped; other hidden keys stay, hidden.

    Raises `CompileError` on wrong shapes, NaN or infinity.
    """
    inputs = graph.inputs
    host = graph.host
    feeds = [op for op in graph.ops if isinstance(op, FloatInput) and op.kind != "host"]
    masks = [op.name for op in feeds if op.kind == "mask"]
    parts: dict[str, list[np.ndarray]] = {item.name: [] for item in feeds}
    lengths: list[int] = []
    for number, batch in enumerate(batches):
        if not isinstance(batch, Mapping):
            given = batch if isinstance(batch, list | tuple) else (batch,)
            if len(given) != len(inputs):
                raise CompileError(
                    f"calibration batch {number} has {len(given)} inputs, the module {len(inputs)}"
                )
            batch = {item.name: value for item, value in zip(inputs, given, strict=True)}
        arrays: dict[str, np.ndarray] = {}
        for item in inputs:
            if item.name not in batch:
                raise CompileError(f"calibration batch {number} lacks input {item.name!r}")
            array = as_array(batch[item.name])
            if host is not None and array.shape != tuple(item.shape):
                raise CompileError(
                    f"calibration batch {number}, input {item.name!r} has shape {array.shape}, not "
                    f"{item.shape}: what the host computes from it has that shape only"
                )
            if item.kind != "host":
                array = _sequences(array, item)
            if item.kind == "float" and not np.isfinite(array).all():
                raise CompileError(
                    f"calibration batch {number}, input {item.name!r} holds NaN or infinity"
                )
            arrays[item.name] = array
        if host is not None:
            try:
                before = host.before({item.name: as_array(batch[item.name]) for item in inputs})
            except InputError as error:
                raise CompileError(f"calibration batch {number}: {error}") from None
            for item in host.feeds:
                if item.kind == "float" and not np.isfinite(before[item.name]).all():
                    raise CompileError(
                        f"calibration batch {number}: {item.name!r} holds NaN or infinity"
                    )
                arrays[item.name] = _sequences(before[item.name], item)
        shapes = {arrays[item.name].shape[:2] for item in feeds}
        if len(shapes) != 1:
            raise CompileError(f"calibration batch {number}: inputs differ in batch or tokens")
        count, tokens = shapes.pop()
        if tokens > graph.tokens:
            raise CompileError(
                f"calibration batch {number} has {tokens} tokens, the graph only {graph.tokens}"
            )
        for index in range(count):
            length = tokens
            if masks:
                visible = np.flatnonzero(np.any([arrays[mask][index] for mask in masks], axis=0))
                length = int(visible[-1]) + 1 if len(visible) else 0
            if length == 0:
                continue
            lengths.append(length)
            for item in feeds:
                row = arrays[item.name][index, :length]
                dtype = {"float": np.float32, "mask": bool}.get(item.kind, np.int64)
                parts[item.name].append(row.astype(dtype))
    if not lengths:
        raise CompileError("calibration needs at least one sequence")
    values = {name: np.concatenate(rows) for name, rows in parts.items()}
    return values, Rows(tuple(lengths))
