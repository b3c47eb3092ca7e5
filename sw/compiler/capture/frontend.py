"""Front end: an ordinary `nn.Module` to the float graph, through `torch.export`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sw.compiler.capture.functional import functional_program, stored_tensors
from sw.compiler.capture.importer import run_node
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.sounds import is_sound
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Activation, Derived, Hosted, Picture, Pointwise, Sound
from sw.compiler.errors import CompileError, UnsupportedOperation, UnsupportedOutputWarning
from sw.compiler.graph.host import Ref
from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatInput, operands

__all__ = ["import_module", "output_names"]


def import_module(
    module: nn.Module | ExportedProgram,
    example_inputs: object = (),
    example_kwargs: Mapping[str, object] | None = None,
    *,
    outputs: Sequence[int | str] | None = None,
) -> FloatGraph:
    """Float graph of `module` for inputs of exactly these shapes.

    Parameters
    ----------
    module: an exported program has its example inputs and keeps them.
    example_inputs: positional inputs (tuple, or one tensor), or a mapping of keyword inputs.
    example_kwargs: keyword inputs.
    outputs: which outputs to compile, by position or by name (as in a transformers result).
        By default all; one that needs an unsupported operation is left out with a warning
        (`UnsupportedOutputWarning`) if another one does not.

    Raises
    ------
    UnsupportedOperation: names the first such operation, and its place in the module.
    CompileError: the inputs or weights cannot be compiled.
    """
    program, examples = functional_program(module, example_inputs, example_kwargs)
    capture = Capture()
    failures = _interpret(program, capture, examples)
    results = _select(program, capture, failures, outputs)
    host = capture.host.finish(program.graph, results)
    if not capture.host.outputs:
        raise CompileError(
            "no output of the module depends on activations: they come from float inputs and "
            "embeddings, other integer inputs can only be masks"
        )
    graph = capture.builder.finish(capture.host.outputs)
    graph.host = host
    _finish_inputs(program, capture, graph)
    return graph


def _interpret(
    program: ExportedProgram, capture: Capture, examples: list
) -> dict[torch.fx.Node, UnsupportedOperation]:
    """Fill `capture.values`; nodes that cannot be compiled, each with the first cause."""
    state = stored_tensors(program)
    failures: dict[torch.fx.Node, UnsupportedOperation] = {}
    given = iter(examples)
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in state:
                    capture.values[node] = state[node.name]
                else:
                    capture.values[node] = _input(node, capture, next(given))
            elif node.op == "call_function":
                cause = next((failures[n] for n in node.all_input_nodes if n in failures), None)
                if cause is not None:
                    failures[node] = cause
                    continue
                try:
                    capture.values[node] = run_node(capture, node)
                except UnsupportedOperation as error:
                    failures[node] = error
    return failures


def _input(node: torch.fx.Node, capture: Capture, example: object) -> object:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return value  # None or a number, fixed by the example
    shape = tuple(int(size) for size in value.shape)
    if not value.dtype.is_floating_point:
        capture.inputs[node] = shape
        assert isinstance(example, Tensor)
        capture.examples[node] = example
        return Derived(node)
    if len(shape) == 4:
        capture.inputs[node] = shape
        return Picture(node)
    if len(shape) == 3 and is_sound(node):
        capture.inputs[node] = shape
        return Sound(node)
    if len(shape) not in (2, 3):
        raise CompileError(
            f"input {node.name!r} has shape {shape}; float inputs are [tokens, features], "
            "[batch, tokens, features], sound [batch, channels, length] that conv1d reads, or "
            "pictures [batch, channels, height, width]"
        )
    builder = capture.builder
    batch, tokens = (1, *shape)[-3:-1]
    builder.set_shape(batch, tokens, node.name)
    name = builder.put(FloatInput(node.name, "float", shape))
    return Activation.whole(name, shape)


# --- outputs ----------------------------------------------------------------------------------


def _select(program: ExportedProgram, capture: Capture, failures: dict, wanted) -> tuple:
    """The wanted results: values of the accelerator or the host, or constants."""
    node = next(n for n in program.graph.nodes if n.op == "output")
    changes = len(program.graph_signature.output_specs) - len(program.graph_signature.user_outputs)
    leaves = pytree.tree_leaves(node.args[0])[changes:]
    names = output_names(program, len(leaves))
    if wanted is None:
        chosen = list(range(len(leaves)))
    else:
        chosen = [names.index(w) if w in names else w for w in wanted]
        for item in chosen:
            if not isinstance(item, int) or not 0 <= item < len(leaves):
                raise CompileError(f"no output {item!r}; the module has {', '.join(names)}")
    found: list = []
    refused: list[tuple[str, UnsupportedOperation]] = []
    for position in chosen:
        leaf = leaves[position]
        if leaf is None:
            continue
        try:
            found.append(_result(capture, failures, leaf))
        except UnsupportedOperation as error:
            refused.append((names[position], error))
    if refused and (wanted is not None or not any(isinstance(item, Ref) for item in found)):
        raise refused[0][1]
    for name, error in refused:
        warnings.warn(f"output {name!r} is left out: {error}", UnsupportedOutputWarning, 4)
    return tuple(found)


def _result(capture: Capture, failures: dict, leaf: object) -> object:
    """One result; raises `UnsupportedOperation`."""
    if not isinstance(leaf, torch.fx.Node):
        return leaf  # a number or a text that the module returns
    if leaf in failures:
        raise failures[leaf]
    value = capture.values[leaf]
    if isinstance(value, Tensor):
        value = Hosted(leaf, True)  # a constant; the host has it
    if isinstance(value, Pointwise):
        raise value.error
    if isinstance(value, Activation):
        if value.taken:
            return capture.host.result(leaf)
        for part in (value, capture.builder.part(value, place_of(leaf))):
            if part is not None and part.is_whole(capture.builder.batch * capture.builder.tokens):
                return capture.host.output(part.name, tuple(part.index.shape))
        raise refuse(leaf, "an output must be a whole value, in order")
    if isinstance(value, Hosted) and value.pooled:
        return capture.host.result(leaf)
    if isinstance(value, Derived):
        return capture.host.result(leaf)
    raise refuse(leaf, "it is no output of the accelerator, nor of what follows pooled rows")


def output_names(program: ExportedProgram, count: int) -> list[str]:
    """Names of the module's outputs, as in a transformers result, or by position."""
    spec = program.call_spec.out_spec
    context = getattr(spec, "context", None)
    if isinstance(context, list | tuple):
        names = context[0] if context and isinstance(context[0], list) else context
        if len(names) == count and all(isinstance(n, str) for n in names):
            return list(names)
    return [f"output {i}" for i in range(count)]


# --- inputs -----------------------------------------------------------------------------------


def _finish_inputs(program, capture: Capture, graph: FloatGraph) -> None:
    """Put every input into the graph, masks too, in call order, and the host's feeds behind."""
    masks = {op.mask for op in graph.ops if isinstance(op, FloatAttention)}
    present = {op.name: op for op in graph.ops if isinstance(op, FloatInput)}
    rest = [op for op in graph.ops if not isinstance(op, FloatInput)]
    used = {name for op in rest for name in operands(op)}
    used |= {name for name, _ in graph.outputs}
    host = graph.host.names_read if graph.host else set()
    ordered = []
    for node in program.graph.nodes:
        name = node.name
        if node.op != "placeholder":
            continue
        if name in present:
            op = present[name]
            reader = name in used or name not in host
            ordered.append(op if reader else FloatInput(name, "host", op.shape))
        elif node in capture.inputs:
            kind = "mask" if name in masks else "host"
            ordered.append(FloatInput(str(name), kind, capture.inputs[node]))
        else:
            continue
        if name not in used and name not in host:
            warnings.warn(f"input {name!r} has no effect", UserWarning, 3)
    feeds = graph.host.feeds if graph.host else ()
    graph.ops[:] = [*ordered, *feeds, *rest]
