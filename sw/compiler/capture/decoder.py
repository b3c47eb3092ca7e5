"""Causal language models, as PyTorch or `transformers` have them, to float graphs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sw.compiler.capture.decoder_nodes import DecoderCapture, run_decoder_node
from sw.compiler.capture.frontend import output_names
from sw.compiler.capture.functional import functional_program, private_copy, stored_tensors
from sw.compiler.capture.lengths import Exported, Lengths
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.symbolic import Activation, Derived, Pointwise, Positional
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatGraph, FloatInput, FloatLinear

__all__ = ["capture_decoder", "check_configuration"]

TOKENS = 7
"""Of the imported graph: few, and no size that a module has by chance in proportion."""
MEMORY_ROWS = 11
"""Of the imported graph; it does not depend on how many there are."""
SHORTEST = 3
"""Positions of a context; of fewer, one token would be all there is to export."""
ROTARY = {"dynamic", "longrope"}
"""Rotary scalings whose angles depend on the length of the text."""
EXPERTS = "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"
WINDOWS = {"sliding_attention", "chunked_attention"}


def capture_decoder(module: nn.Module, *, context: int, memory: int = 0) -> FloatGraph:
    """Float graph of a causal language model: one sequence of a few tokens.

    Its input is token numbers [1, tokens], its output the logits of every token [1, tokens,
    vocabulary], which its last operation, a linear, gives. What depends on the position
    (`FloatRotate`, the constants of `FloatEmbedding`) has a row for each of `context` positions, so
    the graph runs on sequences of up to so many tokens.

    Parameters
    ----------
    module: its forward takes token numbers [batch, tokens] and gives logits, alone or as `logits`.
        It stays as it is.
    context: positions that a sequence may have.
    memory: features of a second input [batch, rows, features], rows of something else that every
        token sees: what an encoder gives. Then the graph has it as well.

    Raises
    ------
    UnsupportedOperation: names the first operation that a decoder lacks, and its place.
    CompileError: the module is no decoder, or not one that keeps only keys and values.
    """
    if isinstance(module, ExportedProgram) or not isinstance(module, nn.Module):
        raise CompileError("a decoder is exported at two lengths: give the nn.Module itself")
    if context < SHORTEST:
        raise CompileError(f"a context of {context} positions is too short")
    check_configuration(module, context)
    private = private_copy(module)
    short = _exported(private, min(TOKENS, context - 1), memory)
    try:
        long = _exported(private, context, memory)
    except CompileError as error:
        raise CompileError(f"for {context} tokens, {error}") from error
    lengths = Lengths(short, long)
    capture = DecoderCapture(lengths)
    with torch.no_grad():
        for node in short.nodes:
            if node.op == "placeholder":
                capture.values[node] = _placeholder(capture, node)
            elif node.op == "call_function":
                capture.values[node] = run_decoder_node(capture, node)
    return _finish(capture)


# --- what it is -------------------------------------------------------------------------------


def check_configuration(module: nn.Module, context: int) -> None:
    """Raises `CompileError` for what the configuration of `transformers` says no decoder has."""
    config = getattr(module, "config", None)
    name = type(module).__name__

    def entry(key: str) -> Any:
        return getattr(config, key, None)

    if entry("is_encoder_decoder"):
        raise CompileError(f"{name} has an encoder: only decoders of their own can be captured")
    rotary = entry("rope_parameters") or entry("rope_scaling") or {}
    nested = [item for item in rotary.values() if isinstance(item, dict)]
    for item in (rotary, *nested):
        kind = item.get("rope_type", item.get("type"))
        if kind in ROTARY:
            raise CompileError(
                f"{name} has rotary scaling {kind!r}, whose angles depend on the length of the text"
            )
    for key in EXPERTS:
        if isinstance(count := entry(key), int) and count > 1:
            raise CompileError(f"{name} has {count} experts ({key}), of which tokens choose some")
    kinds = set(entry("layer_types") or ())
    window = entry("sliding_window")
    sliding = bool(kinds & WINDOWS) if kinds else entry("use_sliding_window") is not False
    if window is not None and window < context and sliding:
        raise CompileError(
            f"{name} has a sliding window of {window} tokens: a context of {context} needs "
            "attention over all of them"
        )
    others = kinds - WINDOWS - {"full_attention", "attention"}
    if others or getattr(module, "_is_stateful", False):
        what = f"layers of kind {min(others)!r}" if others else "layers"
        raise CompileError(f"{name} has {what} whose state is not keys and values")


def _exported(module: nn.Module, tokens: int, memory: int) -> Exported:
    """The module at so many tokens of one sequence."""
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    names = inspect.signature(module.forward).parameters
    named: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}
    if memory:
        given = ids, torch.zeros(1, MEMORY_ROWS, memory)
        program, _ = functional_program(module, given, named)
    elif "input_ids" in names:
        program, _ = functional_program(module, (), {"input_ids": ids, **named})
    else:
        program, _ = functional_program(module, (ids,), named)
    return Exported(tokens, _logits(program), stored_tensors(program))


def _logits(program: ExportedProgram) -> torch.fx.Node:
    """The node of the logits."""
    output = next(n for n in program.graph.nodes if n.op == "output")
    signature = program.graph_signature
    changes = len(signature.output_specs) - len(signature.user_outputs)
    leaves = pytree.tree_leaves(output.args[0])[changes:]
    named = dict(zip(output_names(program, len(leaves)), leaves, strict=True))
    found = [leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)]
    if isinstance(named.get("logits"), torch.fx.Node):
        found = [named["logits"]]
    if len(found) != 1:
        raise CompileError(
            f"the module gives {len(found)} results: give one that gives the logits, alone or "
            "named so"
        )
    return found[0]


def _placeholder(capture: DecoderCapture, node: torch.fx.Node) -> object:
    stored = capture.lengths.short.stored
    if node.name in stored:
        differs, tensor = capture.lengths.differs(node), stored[node.name]
        return Positional(node, tensor) if differs else tensor
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return value
    shape = tuple(value.shape)
    if value.dtype.is_floating_point:
        name = capture.builder.put(FloatInput(node.name, "float", shape))
        return Activation.whole(name, shape)
    capture.inputs[node] = shape
    capture.examples[node] = torch.zeros(shape, dtype=value.dtype)
    return Derived(node)


# --- the graph --------------------------------------------------------------------------------


def _finish(capture: DecoderCapture) -> FloatGraph:
    builder, node = capture.builder, capture.lengths.short.result
    value = capture.values[node]
    if isinstance(value, Pointwise):
        raise value.error
    place = place_of(node)
    if isinstance(value, Activation):
        value = builder.part(value, place) or value
    tokens = capture.lengths.short.tokens
    if (
        not isinstance(value, Activation)
        or not isinstance(builder.ops[value.name], FloatLinear)
        or value.index.shape != (1, tokens, value.features)
        or not value.is_whole(tokens)
    ):
        raise refuse(node, "the result must be the logits [1, tokens, vocabulary] of a linear")
    graph = builder.finish([(value.name, (1, tokens, value.features))])
    inputs = [op for op in graph.ops if isinstance(op, FloatInput)]
    inputs.sort(key=lambda item: item.kind != "tokens")
    if [item.kind for item in inputs] not in (["tokens"], ["tokens", "float"]) or (
        inputs[0].shape != (1, tokens)
    ):
        raise CompileError(
            "a decoder has one input, token numbers [batch, tokens], and maybe a second one, rows "
            "that all tokens see"
        )
    graph.ops[:] = [*inputs, *(op for op in graph.ops if not isinstance(op, FloatInput))]
    return graph
