"""Linear layers with 2:4 and INT4 weights: on golden, the integers of the same layer in INT8."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.config import AcceleratorConfig
from hw.isa import MATRIX_OPCODES, Opcode
from hw.sparse.formats import DENSE, WeightFormat
from sw.bench.workloads import encoder, gemm
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph, QuantLinear
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import Builder, formats_of, random_inputs
from tests.sw.compiler.shuffle import commands_of

CASES = [
    pytest.param(config, format, id=f"{config.name} {format.name}")
    for config in CONFIGS.values()
    for format in formats_of(config)
    if format != DENSE
]
SHAPES = [(33, 70, 45), (1, 3, 5), (5, 1568, 9), (64, 128, 64)]


def changed(graph: QuantGraph, **fields) -> QuantGraph:
    """The graph with other fields in its linear layers."""
    ops = [
        dataclasses.replace(op, **fields) if isinstance(op, QuantLinear) else op for op in graph.ops
    ]
    return dataclasses.replace(graph, ops=ops)


def outputs(graph: QuantGraph, config: AcceleratorConfig) -> list[np.ndarray]:
    inputs = random_inputs(graph)
    program = lower(graph, config)
    got = program.read_outputs(run_golden(program, inputs))
    for result, want in zip(got, run_reference(graph, inputs), strict=True):
        np.testing.assert_array_equal(result, want)
    return got


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("config", "format"), CASES)
def test_same_bytes_as_dense(config, format, shape):
    graph = gemm(*shape, format=format)
    (found,) = outputs(graph, config)
    assert len(np.unique(found)) > 3
    if format.scaled:  # no INT8 weights are worth as much
        return
    (dense,) = outputs(changed(graph, format=DENSE, multipliers=None), config)
    np.testing.assert_array_equal(found, dense)


@pytest.mark.parametrize(("config", "format"), CASES)
def test_commands_have_the_format(config, format):
    program = lower(gemm(33, 70, 45, format=format), config)
    gemms = [command for command in commands_of(program) if command.opcode in MATRIX_OPCODES]
    assert gemms
    for command in gemms:
        kind = "SPARSE_" if format.sparse else "SCALED_" if format.scaled else ""
        assert command.opcode == Opcode[f"{kind}GEMM"]
        assert command["w_int4"] == (format.bits == 4)
        assert command["w_group"] == format.group // (config.rows << format.sparse)
        if format.sparse:
            assert command["a_stride"] % 2, "an even stride makes its two words share banks"


@pytest.mark.parametrize(("config", "format"), CASES)
def test_encoder(config, format):
    """Whole layers: heads, residual, GELU, norms."""
    outputs(encoder(48, 2, 72, 19, format=format), config)


def behind_attention(dim: int, format: WeightFormat) -> QuantGraph:
    """A linear layer that reads three heads of `dim` features."""
    b = Builder(dim, 1, 9, [format])
    a = b.float_input("a", 8, 3 * dim)
    _, y = b.linear(b.attention(a, a, a, 3, "attention"), 13, "behind")
    b.output(y)
    return b.graph


@pytest.mark.parametrize("dim", [4, 8, 20])
@pytest.mark.parametrize("name", ["4x4", "8x16"])
def test_inputs_padded_head_by_head(name, dim):
    """Groups of four inputs stay together if heads are a multiple of four."""
    for format in (WeightFormat(True), WeightFormat(bits=4), WeightFormat(True, 4)):
        outputs(behind_attention(dim, format), CONFIGS[name])


def test_inputs_whose_padding_breaks_a_group():
    for format, text in (
        (WeightFormat(True), "moves its groups of 4 inputs: use heads of a multiple of 4"),
        (WeightFormat(bits=4, group=8), "moves its groups of 8 inputs: use int4 without groups"),
    ):
        with pytest.raises(CompileError, match=rf"^behind: .*{text}"):
            lower(behind_attention(10, format), CONFIGS["8x16"])


@pytest.mark.parametrize(
    ("name", "format", "option"),
    [
        ("12x8", WeightFormat(True), "sparse"),
        ("8x4", WeightFormat(bits=4), "int4"),
        ("16x16", WeightFormat(True), "sparse"),
        ("16x16", WeightFormat(bits=4, group=16), "int4"),
        ("12x8", WeightFormat(True, 4), "sparse"),
    ],
)
def test_a_machine_without_the_format(name, format, option):
    text = f"configuration '{name}' cannot hold {format.name} weights: it needs {option}=True"
    with pytest.raises(CompileError, match=f"^gemm: {text}"):
        lower(gemm(5, 70, 9, format=format), CONFIGS[name])
    with pytest.raises(CompileError, match=rf"^layer0\.\w+.*: {text}"):
        lower(encoder(32, 2, 32, 9, format=format), CONFIGS[name])


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("8x16", WeightFormat(bits=4, group=4)),
        ("8x16", WeightFormat(bits=4, group=12)),
        ("8x16", WeightFormat(bits=4, group=8 * 16)),
        ("8x16", WeightFormat(True, 4, 8)),
        ("4x4", WeightFormat(True, 4, 4)),
    ],
)
def test_groups_that_are_no_whole_tiles(name, format):
    reach = CONFIGS[name].rows << format.sparse
    text = f"^gemm: {format.name}: a group must be 1 to 15 tiles of {reach} inputs in .*'{name}'"
    with pytest.raises(CompileError, match=text):
        lower(gemm(5, 70, 9, format=format), CONFIGS[name])


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (WeightFormat(True), r"output 0, inputs 0\.\.3 have more than 2 weights that are not 0"),
        (WeightFormat(bits=4), r"weight\[0, \d+\] = -?\d+ is not a value of -8\.\.7 times 1"),
        (WeightFormat(bits=4, group=8), r"needs multipliers of shape \(9, 9\), found None"),
    ],
)
def test_weights_that_the_format_cannot_hold(format, text):
    with pytest.raises(CompileError, match=f"^gemm: .*{text}"):
        lower(changed(gemm(5, 70, 9), format=format), CONFIGS["8x16"])
