"""Parameters from ONNX files as exporters and quantisers write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sw.compiler.errors import CompileError
from sw.models.onnx_file import load_into, package_file, parameters

onnx = pytest.importorskip("onnx", reason="onnx is in the extra dev")
SHAPE = (6, 64)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.block = nn.ModuleDict({"plain": nn.Linear(3, 4), "packed": nn.Linear(64, 6)})


def _file(path: Path, module: Module, zero_point: bool = False) -> np.ndarray:
    """Write the module's values; returns what the packed weights stand for."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(3)
    levels = random.integers(-8, 8, SHAPE)
    scales = random.uniform(0.1, 1, (6, 2)).astype(np.float32)
    unsigned = (levels + 8).astype(np.uint8).reshape(6, 2, 16, 2)
    rows = random.integers(0, 256, (5, 3)).astype(np.uint8)
    plain = module.block["plain"].weight.detach().numpy()
    stored = {
        "block.plain.bias": module.block["plain"].bias.detach().numpy(),
        "block.packed.bias": module.block["packed"].bias.detach().numpy(),
        "onnx::1": plain.T.copy(),
        "onnx::2": unsigned[..., 0] | unsigned[..., 1] << 4,
        "onnx::2_scales": scales.reshape(-1),
        "table.weight_quantized": rows,
        "table.weight_scale": np.float32(0.5),
        "table.weight_zero_point": np.uint8(100),
    }
    with torch.no_grad():
        module.table.weight.copy_(torch.from_numpy((rows - np.float32(100)) * np.float32(0.5)))
    packed = ["h", "onnx::2", "onnx::2_scales", *(["block.plain.bias"] if zero_point else [])]
    nodes = [
        helper.make_node("Gather", ["table.weight_quantized", "ids"], ["g"], "/table/Gather"),
        helper.make_node(
            "DequantizeLinear", ["g", "table.weight_scale", "table.weight_zero_point"], ["x"]
        ),
        helper.make_node("MatMul", ["x", "onnx::1"], ["h"], "/block/plain/MatMul"),
        helper.make_node("MatMul", ["h", "x"], ["s"], "/block/scores"),
        helper.make_node(
            "MatMulNBits", packed, ["y"], "/block/packed/MatMul_Q4",
            domain="com.microsoft", bits=4, block_size=32, K=64, N=6,
        ),
    ]  # fmt: skip
    kind = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("ids", "y")]
    initial = [numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items()]
    graph = helper.make_graph(nodes, "small", kind[:1], kind[1:], initial)
    onnx.save(helper.make_model(graph), path)
    return levels * np.repeat(scales, 32, axis=1)


def test_weights_are_the_modules(tmp_path):
    module, path = Module(), tmp_path / "small.onnx"
    packed = _file(path, module)
    other = Module()
    load_into(other, parameters(path), path)
    found, want = other.state_dict(), module.state_dict()
    want["block.packed.weight"] = torch.from_numpy(packed.astype(np.float32))
    assert found.keys() == want.keys()
    for name in want:
        assert torch.equal(found[name], want[name]), name


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "small.onnx"
    _file(path, Module())
    with pytest.raises(CompileError, match=r"0.bias has shape None, the module needs \(2,\)"):
        load_into(nn.Sequential(nn.Linear(2, 2)), parameters(path), path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CompileError, match=r"small.onnx is no ONNX file"):
        parameters(path)
    _file(path, Module(), zero_point=True)
    with pytest.raises(CompileError, match="only 4-bit weights without zero points"):
        parameters(path)
    with pytest.raises(FileNotFoundError, match="missing: scripts/setup-tools x"):
        package_file("no_such_package", "model.onnx", "scripts/setup-tools x")
