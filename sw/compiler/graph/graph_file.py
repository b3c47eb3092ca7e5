"""Quantised graphs as files: one sealed safetensors file, structure as JSON in its metadata.

Quantising takes minutes, lowering a second; so the quantised graph is what is worth keeping.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hw.isa import Function
from hw.sparse.formats import WeightFormat
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph import host
from sw.compiler.graph import operations as ir
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors, tensor_bytes

__all__ = ["GRAPH_VERSION", "flatten", "graph_bytes", "load_graph", "restore"]

FORMAT = "weft-quantised-graph"
GRAPH_VERSION = 5

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Affine,
        host.HostCall,
        host.HostGraph,
        host.HostMask,
        host.Ref,
        host.TorchName,
        ir.Cache,
        ir.DecoderState,
        ir.FloatInput,
        ir.Memory,
        ir.QuantAttention,
        ir.QuantCachedAttention,
        ir.QuantElementwise,
        ir.QuantGated,
        ir.QuantGraph,
        ir.QuantHead,
        ir.QuantHeadNorm,
        ir.QuantInput,
        ir.QuantLinear,
        ir.QuantNorm,
        ir.QuantOutput,
        ir.Tensor,
        WeightFormat,
    )
}


def flatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a value; arrays move to `arrays` and leave their key and type behind."""
    if isinstance(value, Function):
        return {"function": int(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        small = np.ascontiguousarray(ir.smallest(array)).reshape(array.shape)
        # By content: what layers share is kept once.
        key = hashlib.sha256(f"{small.dtype} {small.shape}".encode() + small.tobytes()).hexdigest()
        arrays[key] = small
        return {"array": key, "dtype": str(array.dtype)}
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: flatten(getattr(value, f.name), arrays)
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flatten(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": {key: flatten(item, arrays) for key, item in value.items()}}
    return value


def restore(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "function" in value:
        return Function(value["function"])
    if "array" in value:
        return arrays[value["array"]].astype(value["dtype"], copy=False)
    if "class" in value:
        fields = {k: restore(v, arrays) for k, v in value["fields"].items()}
        return _CLASSES[value["class"]](**fields)
    if "list" in value:
        return [restore(item, arrays) for item in value["list"]]
    if "tuple" in value:
        return tuple(restore(item, arrays) for item in value["tuple"])
    return {k: restore(v, arrays) for k, v in value["dict"].items()}


def graph_bytes(graph: ir.QuantGraph) -> bytes:
    """Content of the file of a quantised graph."""
    arrays: dict[str, np.ndarray] = {}
    header = {"graph": flatten(graph, arrays)}
    return tensor_bytes(arrays, header, FORMAT, GRAPH_VERSION)


def load_graph(path: str | Path) -> ir.QuantGraph:
    """Read a file of `graph_bytes`. Raises `CompileError` for anything else."""
    try:
        header, arrays = read_tensors(path, FORMAT, GRAPH_VERSION, "quantise again")
    except TensorFileError as error:
        raise CompileError(str(error)) from None
    return restore(header["graph"], arrays)
