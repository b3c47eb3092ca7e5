"""Quantised graphs as files: arrays in safetensors, structure as JSON in its metadata.

Quantising takes minutes, lowering a second; so the quantised graph is what is worth keeping.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hw.isa import Function
from hw.sparse.formats import WeightFormat
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph import operations as ir

__all__ = ["GRAPH_VERSION", "load_graph", "save_graph"]

GRAPH_VERSION = 4

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Affine,
        ir.FloatInput,
        ir.QuantAttention,
        ir.QuantElementwise,
        ir.QuantGraph,
        ir.QuantInput,
        ir.QuantLinear,
        ir.QuantNorm,
        ir.QuantOutput,
        ir.Tensor,
        WeightFormat,
    )
}


def _smallest(array: np.ndarray) -> np.ndarray:
    """INT64 arrays of small values take the least bytes that hold them."""
    if array.dtype != np.int64 or array.size == 0:
        return array
    for kind in (np.int8, np.int16, np.int32):
        bounds = np.iinfo(kind)
        if bounds.min <= array.min() and array.max() <= bounds.max:
            return array.astype(kind)
    return array


def _flatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a value; arrays move to `arrays` and leave their key and type behind."""
    if isinstance(value, Function):
        return {"function": int(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        small = np.ascontiguousarray(_smallest(array)).reshape(array.shape)
        # By content: what layers share is kept once.
        key = hashlib.sha256(f"{small.dtype} {small.shape}".encode() + small.tobytes()).hexdigest()
        arrays[key] = small
        return {"array": key, "dtype": str(array.dtype)}
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: _flatten(getattr(value, f.name), arrays)
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: _flatten(item, arrays) for key, item in value.items()}}
    return value


def _restore(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "function" in value:
        return Function(value["function"])
    if "array" in value:
        return arrays[value["array"]].astype(value["dtype"])
    if "class" in value:
        fields = {k: _restore(v, arrays) for k, v in value["fields"].items()}
        return _CLASSES[value["class"]](**fields)
    if "list" in value:
        return [_restore(item, arrays) for item in value["list"]]
    if "tuple" in value:
        return tuple(_restore(item, arrays) for item in value["tuple"])
    return {k: _restore(v, arrays) for k, v in value["dict"].items()}


def save_graph(graph: ir.QuantGraph, path: str | Path) -> None:
    """Write a quantised graph; the file appears whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(_flatten(graph, arrays))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    metadata = {"format": "weft-quantised-graph", "version": str(GRAPH_VERSION)}
    save_file(arrays, partial, metadata={**metadata, "graph": structure})
    partial.replace(path)


def load_graph(path: str | Path) -> ir.QuantGraph:
    """Read what `save_graph` wrote. Raises `CompileError` for anything else."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "weft-quantised-graph":
                raise CompileError(f"{path} is not a quantised graph")
            if metadata.get("version") != str(GRAPH_VERSION):
                raise CompileError(
                    f"{path} has graph version {metadata.get('version')}, this is {GRAPH_VERSION}: "
                    "quantise again"
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise CompileError(f"{path} is damaged: {error}") from None
    return _restore(json.loads(metadata["graph"]), arrays)
