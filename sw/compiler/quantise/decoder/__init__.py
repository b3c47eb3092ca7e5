"""Post-training quantisation of language models to the accelerator's exact integers.

Linears have INT8 weights and 16-bit inputs, so nearly all of the error is the weights' rounding;
everything is static. Positions that need another range than all others, as a model's first one,
are a prefix: fixed tokens whose keys and values are computed in float, here, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.quantise.decoder.attention import quantise_attention, quantise_memory
from sw.compiler.quantise.decoder.head import quantise_head
from sw.compiler.quantise.decoder.linear import (
    quantise_activated,
    quantise_add,
    quantise_gated,
)
from sw.compiler.quantise.decoder.options import DecoderOptions
from sw.compiler.quantise.decoder.plan import (
    ActivatedStage,
    AddStage,
    AttentionStage,
    EmbeddingStage,
    GatedStage,
    MemoryStage,
    NormStage,
    Stage,
)
from sw.compiler.quantise.decoder.resume import Unfinished
from sw.compiler.quantise.decoder.state import State
from sw.compiler.quantise.decoder.stream import quantise_embedding, quantise_norm
from sw.compiler.quantise.options import Progress

__all__ = ["DecoderOptions", "Unfinished", "quantise_decoder"]


def _quantise_stage(state: State, stage: Stage) -> None:
    if isinstance(stage, EmbeddingStage):
        quantise_embedding(state, stage)
    elif isinstance(stage, NormStage):
        quantise_norm(state, stage)
    elif isinstance(stage, AttentionStage):
        quantise_attention(state, stage)
    elif isinstance(stage, MemoryStage):
        quantise_memory(state, stage)
    elif isinstance(stage, GatedStage):
        quantise_gated(state, stage)
    elif isinstance(stage, ActivatedStage):
        quantise_activated(state, stage)
    elif isinstance(stage, AddStage):
        quantise_add(state, stage)
    else:
        quantise_head(state, stage)


def quantise_decoder(
    graph: FloatGraph,
    calibration: Sequence[Sequence[int]],
    *,
    context: int,
    memories: Sequence[np.ndarray] = (),
    prefix: Sequence[int] = (),
    options: DecoderOptions | None = None,
    progress: Progress | None = None,
    unfinished: Unfinished | None = None,
) -> QuantGraph:
    """Quantised graph of a language model whose sequences grow to `context` tokens.

    graph: causal, with angles and position embeddings for `context` positions. calibration: token
    numbers of sequences, each beginning with `prefix`, the tokens that every sequence begins with.
    memories: what each sequence sees besides, [rows, features], if the graph has such an input.
    unfinished: where an interrupted run goes on; the result is the same, to the bit.

    Raises `CompileError` for modules that are no decoder, by the place where they are not.
    """
    options = options or DecoderOptions()
    state = State(graph, calibration, context, tuple(prefix), options, memories)
    done = 0 if unfinished is None else unfinished.load(state)
    for number, stage in enumerate(state.stages[done:], done):
        if progress is not None:
            progress(stage.op.name, number / len(state.stages))
        _quantise_stage(state, stage)
        state.forget(number)
        if unfinished is not None:
            unfinished.save(state, number + 1)
    if progress is not None:
        progress("done", 1.0)
    return state.graph
