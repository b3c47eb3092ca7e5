"""Stages without weights: inputs and embeddings, activations of INT16 values, layer norms."""

from __future__ import annotations

import numpy as np

from hw.isa import NORM_FRACTION_BITS
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatEmbedding, QuantElementwise, QuantInput, QuantNorm
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.names import narrow_name, wide_name
from sw.compiler.quantise.result_tensors import declare_narrow, declare_results, function_unit
from sw.compiler.quantise.stages import ElementStage, InputStage, NormStage
from sw.compiler.quantise.state import State

__all__ = ["quantise_element", "quantise_input", "quantise_norm"]


def quantise_input(state: State, stage: InputStage) -> None:
    op, value = stage.op, stage.out
    embedding = isinstance(op, FloatEmbedding)
    direct = not embedding or (op.constant is None and not op.tables)
    source = op.source if embedding else op.name
    if state.is_wide(value) or not direct:
        scale = state.add_wide(value)
        constant, tables, indices = None, (), ()
        if isinstance(op, FloatEmbedding):
            if op.source is not None and op.tables:
                raise CompileError(f"a float input added to an embedding at {op.place}")
            tables = tuple(np.rint(t / scale).astype(np.int64) for t in op.tables)
            indices = op.indices
            if op.constant is not None:
                constant = np.rint(op.constant / scale).astype(np.int64)
        kind = "float" if source is not None else "embedding"
        sources = (source,) if source is not None else indices
        out = wide_name(value)
        state.emit(QuantInput(out, kind, sources, tables, constant))
    if state.is_narrow(value):
        chosen = declare_narrow(state, value)
        if direct:
            assert source is not None
            state.emit(QuantInput(narrow_name(value), "float", (source,)))
        else:
            first = make_affine(
                state.wide_scale(value) / chosen.scale, -chosen.zero / chosen.scale, value
            )
            state.emit(QuantElementwise(wide_name(value), first, out8=narrow_name(value)))


def quantise_element(state: State, stage: ElementStage) -> None:
    unit = function_unit(state, stage, stage.op.function)
    fields = declare_results(state, stage, unit)
    before = state.wide_scale(stage.op.x)
    width = state.graph.tensors[wide_name(stage.op.x)].features
    first = make_affine(np.full(width, before / unit), 0.0, stage.op.place)
    state.emit(
        QuantElementwise(
            wide_name(stage.op.x), first, stage.op.function, place=stage.op.place, **fields
        )
    )


def quantise_norm(state: State, stage: NormStage) -> None:
    op, value, fields = stage.op, stage.out, {}
    one = 2.0**-NORM_FRACTION_BITS
    if state.is_wide(value):
        scale = state.add_wide(value)
        fields.update(
            out16=wide_name(value), to16=make_affine(op.gain * one / scale, op.bias / scale)
        )
    if state.is_narrow(value):
        chosen = declare_narrow(state, value)
        fields.update(
            out8=narrow_name(value),
            to8=make_affine(op.gain * one / chosen.scale, (op.bias - chosen.zero) / chosen.scale),
        )
    features = len(op.gain)
    epsilon = op.epsilon * features**2 / state.wide_scale(op.x) ** 2
    state.emit(QuantNorm(wide_name(op.x), features, round(epsilon), place=op.place, **fields))
