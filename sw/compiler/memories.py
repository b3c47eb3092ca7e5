"""An encoder and the decoder that remembers what it finds, as entries of one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hw.config import AcceleratorConfig, get_config
from hw.isa import Function
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    DecoderState,
    FloatAttention,
    FloatGraph,
    FloatLinear,
    Memory,
    QuantGraph,
    QuantLinear,
    Tensor,
)
from sw.compiler.lower.decoder import PASSES, lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.lower.remember import Remembering
from sw.compiler.program.joint import JointProgram
from sw.compiler.quantise.affines import make_affine

__all__ = ["DECODER", "ENCODER", "in_units_of", "lower_with_memory", "with_keys_and_values"]

ENCODER, DECODER = "encoder", "decoder"
"""Names of the entries."""


def lower_with_memory(
    encoder: QuantGraph,
    decoder: QuantGraph,
    config: str | AcceleratorConfig,
    passes: Sequence[int] = PASSES,
) -> JointProgram:
    """Compile both for one machine: `encoder` stores keys and values where `decoder` reads them.

    encoder: its results are keys and values of each memory of the decoder, in order. passes: as of
    `lower_decoder`. Raises `CompileError`.
    """
    config = get_config(config)
    reader = lower_decoder(decoder, config, passes)
    remembering = Remembering(reader.memories, reader.cache_bytes)
    writer = lower(in_units_of(encoder, reader.state), config, remembering)
    return JointProgram({ENCODER: writer, DECODER: reader})


def with_keys_and_values(encoder: FloatGraph, decoder: FloatGraph) -> FloatGraph:
    """An encoder that gives keys and values, as a decoder makes them of its rows, in their place.

    Raises `CompileError` where the encoder's rows are not what the decoder sees, or where keys and
    values are more than a linear of them.
    """
    attentions = [op for op in decoder.ops if isinstance(op, FloatAttention) and op.memory]
    if not attentions:
        raise CompileError("the decoder sees nothing of the encoder: it has no attention over rows")
    if len(encoder.outputs) != 1:
        raise CompileError(f"the encoder gives {len(encoder.outputs)} results: it needs one")
    ((rows, shape),) = encoder.outputs
    made = {op.name: op for op in decoder.ops}
    ops, outputs = list(encoder.ops), []
    for number, attention in enumerate(attentions):
        for kind in "kv":
            linear = made[getattr(attention, kind)]
            if not isinstance(linear, FloatLinear) or linear.x != attention.memory:
                raise CompileError(f"{attention.place}: keys and values are not a linear of rows")
            if linear.weight.shape[1] != shape[-1]:
                raise CompileError(
                    f"{attention.place}: the decoder sees rows of {linear.weight.shape[1]} "
                    f"features, the encoder gives {shape[-1]}"
                )
            name = f"memory{number}.{kind}"
            ops.append(replace(linear, name=name, x=rows))
            outputs.append((name, (*shape[:-1], len(linear.weight))))
    return replace(encoder, ops=ops, outputs=outputs)


def in_units_of(graph: QuantGraph, decoder: DecoderState) -> QuantGraph:
    """The graph with the integers of a decoder's memories as its results: keys of 16 bits, values
    of 8, for each memory in order.

    They are the same real numbers, rounded to other units. Raises `CompileError` where they are no
    keys and values for these memories.
    """
    names = [output.name for output in graph.outputs]
    memories = [memory for memory in decoder.memories.values() for _ in "kv"]
    if not memories or len(names) != len(memories) or len(set(names)) != len(names):
        raise CompileError(
            f"the encoder has {len(set(names))} results, the decoder {len(memories) // 2} "
            "memories: each needs keys and values"
        )
    ops = {getattr(op, "out16", None): number for number, op in enumerate(graph.ops)}
    result = replace(graph, ops=list(graph.ops), tensors=dict(graph.tensors))
    for number, (name, memory) in enumerate(zip(names, memories, strict=True)):
        op = graph.ops[ops[name]] if name in ops else None
        op = _checked(graph, name, op, memory)
        if number % 2:
            unit, centre = memory.value_unit, memory.value_centre
            fields, bits = {"out8": name, "out16": None}, 8
        else:
            unit, centre = memory.key_unit, np.zeros_like(memory.key_unit)
            fields, bits = {"out16": name}, 16
        first = _rescaled(op.first, graph.tensors[name], unit, centre, op.place)
        result.ops[ops[name]] = replace(op, first=first, **fields)
        result.tensors[name] = replace(graph.tensors[name], bits=bits, scale=unit, centre=centre)
    return result


def _checked(graph: QuantGraph, name: str, op: object, memory: Memory) -> QuantLinear:
    """The linear whose result is nothing but these keys or values. Raises `CompileError`."""
    place = getattr(op, "place", "") or name
    followers = [other for other in graph.ops if name in _operands(other)]
    if (
        not isinstance(op, QuantLinear)
        or op.function != Function.NONE
        or op.residual is not None
        or op.out8 is not None
        or followers
    ):
        raise CompileError(
            f"{place}: keys and values of a memory are what a linear gives, and nothing else "
            "reads them"
        )
    found = [graph.batch * graph.tokens_of(name), graph.tensors[name].features]
    wanted = [memory.rows, len(memory.key_unit)]
    if found != wanted:
        raise CompileError(f"{place}: the memory is {wanted}, these keys or values are {found}")
    return op


def _operands(op: object) -> set[str | None]:
    return {getattr(op, field, None) for field in ("x", "residual", "q", "k", "v")}


def _rescaled(
    first: Affine, tensor: Tensor, unit: np.ndarray, centre: np.ndarray, place: str
) -> Affine:
    """The record for `(real - centre) / unit` where `first` is for a tensor's integers."""
    step = tensor.scale * 2.0**-first.shift
    half = np.where(first.shift > 0, 2.0 ** (first.shift - 1), 0)  # rounds, see `make_affine`
    offset = (first.offset - half) * step + tensor.centre
    return make_affine(first.mul * step / unit, (offset - centre) / unit, place)
