"""Parameters of a PyTorch module from the ONNX file that was exported from it.

An exporter keeps the names of biases and norms, but transposes the weights of linears and gives
them numbers; the path of the node that multiplies by them (`/encoder/layer.0/query/MatMul`) says
whose they are. Weights that a quantiser packed afterwards are unpacked, exactly, to float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sw.compiler.errors import CompileError, first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["load_into", "package_file", "parameters"]

BITS = 4
"""Of the packed weights that are read."""
MIDDLE = 1 << (BITS - 1)
"""The packed integer that stands for 0, where a file names no other one."""


def package_file(package: str, path: str, install: str) -> Path:
    """A file of an installed package. Raises `FileNotFoundError` with how to `install` it."""
    spec = importlib.util.find_spec(package)
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / path
    if file is None or not file.exists():
        raise FileNotFoundError(f"the model is missing: {install}")
    return file


def parameters(path: Path) -> dict[str, Tensor]:
    """Every parameter of the file by its name in the module, float32.

    Linears: [outputs, inputs]. Raises `CompileError` for a file that is no ONNX file or cut short,
    and for packed weights of another kind.
    """
    graph = _read(path).graph
    from onnx.numpy_helper import to_array

    stored = {item.name: to_array(item) for item in graph.initializer}
    found = {name: value for name, value in stored.items() if value.dtype == np.float32}
    for node in graph.node:
        operand = node.input[1] if len(node.input) > 1 else ""
        if operand not in stored:
            continue
        name = node.name.strip("/").rpartition("/")[0].replace("/", ".") + ".weight"
        if node.op_type == "MatMul":
            found[name] = found.pop(operand).T
        elif node.op_type == "MatMulNBits":
            found[name] = _unpacked(path, node, stored)
            del found[node.input[2]]
        elif node.op_type == "DequantizeLinear":
            table = node.input[1].removesuffix("_scale")
            zero = stored[node.input[2]].astype(np.float32)
            found[table] = (stored[f"{table}_quantized"] - zero) * stored[operand]
            del found[operand]
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()}


def load_into(module: nn.Module, values: dict[str, Tensor], path: Path) -> None:
    """Give `module` all of `values`. Raises `CompileError` unless they are its parameters."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in values.items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            raise CompileError(
                f"{path}: {name} has shape {shapes.get(name)}, the module needs {wanted.get(name)}"
            )
    module.load_state_dict(values)


def _read(path: Path) -> ModelProto:
    if importlib.util.find_spec("onnx") is None:
        raise CompileError(
            f"{path}: onnx must be installed to read it: the extra onnx (pip install -e '.[onnx]')"
        )
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:  # whatever its parser raises
        raise CompileError(f"{path} is no ONNX file: {first_line(error)}") from None


def _unpacked(path: Path, node: NodeProto, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Weights [outputs, inputs] of groups of 4-bit integers, two to a byte, low half first."""
    sizes = {item.name: item.i for item in node.attribute}
    if sizes["bits"] != BITS or len(node.input) != 3:
        raise CompileError(f"{path}: {node.name}: only 4-bit weights without zero points are read")
    packed, scales = stored[node.input[1]], stored[node.input[2]]
    levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
    weights = (levels.astype(np.float32) - MIDDLE) * scales.reshape(*packed.shape[:2], 1)
    return weights.reshape(sizes["N"], -1)[:, : sizes["K"]]
