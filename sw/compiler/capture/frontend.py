"""Front end: an ordinary `nn.Module` to the float graph, through `torch.export`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sw.compiler.capture.adapt import adapted
from sw.compiler.capture.aten import Importer, operation_name, place_of
from sw.compiler.capture.builder import GraphBuilder
from sw.compiler.capture.symbolic import Activation, Derived
from sw.compiler.errors import (
    CompileError,
    UnsupportedOperation,
    UnsupportedOutputWarning,
    first_line,
)
from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatInput, operands

__all__ = ["import_module"]


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
    if isinstance(module, ExportedProgram):
        _check_parameters(module)
        program = module
    else:
        args, kwargs = _example(example_inputs, example_kwargs)
        module = adapted(module)
        _check_parameters(module)
        program = _export(module, args, kwargs)
    builder = GraphBuilder()
    importer = Importer(builder)
    failures = _interpret(program, importer)
    graph = _select(program, importer, failures, outputs)
    _finish_inputs(program, importer, graph)
    return graph


def _tensor(value: object) -> object:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value


def _example(inputs: object, kwargs: Mapping[str, object] | None) -> tuple[tuple, dict]:
    named = dict(kwargs or {})
    if isinstance(inputs, Mapping):
        named.update(inputs)
        inputs = ()
    elif isinstance(inputs, Tensor | np.ndarray):
        inputs = (inputs,)
    args = tuple(_tensor(item) for item in inputs)  # pyright: ignore
    named = {key: _tensor(item) for key, item in named.items()}
    for label, item in [*enumerate(args), *named.items()]:
        if isinstance(item, Tensor) and item.is_floating_point() and not item.isfinite().all():
            raise CompileError(f"example input {label!r} holds NaN or infinity")
    if not args and not named:
        raise CompileError("example inputs are needed: their shapes fix the program's shapes")
    return args, named


def _check_parameters(module: nn.Module | ExportedProgram) -> None:
    # Not buffers: those of additive masks hold -inf on purpose.
    for name, tensor in module.named_parameters():
        if not tensor.isfinite().all():
            raise CompileError(f"parameter {name!r} holds NaN or infinity")


def _export(module: nn.Module, args: tuple, kwargs: dict) -> ExportedProgram:
    training = module.training
    try:
        module.eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, kwargs or None, strict=False)
    except Exception as error:
        raise CompileError(
            f"torch.export refuses {type(module).__name__}: {first_line(error)}"
        ) from error
    finally:
        module.train(training)


def _interpret(program, importer: Importer) -> dict[torch.fx.Node, UnsupportedOperation]:
    """Fill `importer.values`; nodes that cannot be compiled, each with the first cause."""
    signature = program.graph_signature
    state = {
        **{name: program.state_dict[key] for name, key in signature.inputs_to_parameters.items()},
        **{
            name: program.state_dict[key] if key in program.state_dict else program.constants[key]
            for name, key in signature.inputs_to_buffers.items()
        },
        **{
            name: program.constants[key]
            for name, key in signature.inputs_to_lifted_tensor_constants.items()
        },
    }
    failures: dict[torch.fx.Node, UnsupportedOperation] = {}
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "placeholder":
                if node.name in state:
                    importer.values[node] = state[node.name].detach()
                else:
                    importer.values[node] = _input(node, importer)
            elif node.op == "call_function":
                cause = next((failures[n] for n in node.all_input_nodes if n in failures), None)
                if cause is not None:
                    failures[node] = cause
                    continue
                try:
                    importer.values[node] = importer.run(node)
                except UnsupportedOperation as error:
                    failures[node] = error
            elif node.op == "get_attr":
                raise UnsupportedOperation(operation_name(node), place_of(node), "control flow")
    return failures


def _input(node: torch.fx.Node, importer: Importer) -> object:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return value  # None or a number, fixed by the example
    shape = tuple(int(size) for size in value.shape)
    if not value.dtype.is_floating_point:
        importer.inputs[node] = shape
        return Derived(node)
    if len(shape) not in (2, 3):
        raise CompileError(
            f"input {node.name!r} has shape {shape}; float inputs are [tokens, features] or "
            "[batch, tokens, features]"
        )
    builder = importer.builder
    batch, tokens = (1, *shape)[-3:-1]
    builder.set_shape(batch, tokens, node.name)
    name = builder.put(FloatInput(node.name, "float", shape))
    return Activation.whole(name, shape)


def _select(program, importer: Importer, failures: dict, wanted) -> FloatGraph:
    """Build the graph of the wanted outputs."""
    node = next(n for n in program.graph.nodes if n.op == "output")
    results = pytree.tree_leaves(node.args[0])
    names = _output_names(program, len(results))
    if wanted is None:
        chosen = list(range(len(results)))
    else:
        chosen = [names.index(w) if w in names else w for w in wanted]
        for item in chosen:
            if not isinstance(item, int) or not 0 <= item < len(results):
                raise CompileError(f"no output {item!r}; the module has {', '.join(names)}")
    found: list[tuple[str, tuple[int, ...]]] = []
    refused: list[tuple[str, UnsupportedOperation]] = []
    for position in chosen:
        result = results[position]
        if result is None:
            continue
        if result in failures:
            refused.append((names[position], failures[result]))
            continue
        value = importer.values[result]
        if not isinstance(value, Activation):
            raise CompileError(
                f"output {names[position]!r} does not depend on activations: they come from float "
                "inputs and embeddings, other integer inputs can only be masks"
            )
        order = value.index.reshape(-1)
        count = importer.builder.batch * importer.builder.tokens * value.features
        if order.numel() != count or not torch.equal(order, torch.arange(count)):
            error = UnsupportedOperation(
                operation_name(result),
                place_of(result),
                "an output must be a whole value, in order",
            )
            refused.append((names[position], error))
            continue
        found.append((value.name, tuple(value.index.shape)))
    if refused and (wanted is not None or not found):
        raise refused[0][1]
    for name, error in refused:
        warnings.warn(f"output {name!r} is left out: {error}", UnsupportedOutputWarning, 3)
    if not found:
        raise CompileError("the module has no output that can be compiled")
    return importer.builder.finish(found)


def _output_names(program, count: int) -> list[str]:
    spec = program.call_spec.out_spec
    context = getattr(spec, "context", None)
    if isinstance(context, list | tuple):
        names = context[0] if context and isinstance(context[0], list) else context
        if len(names) == count and all(isinstance(n, str) for n in names):
            return list(names)
    return [f"output {i}" for i in range(count)]


def _finish_inputs(program, importer: Importer, graph: FloatGraph) -> None:
    """Put every input into the graph, masks too, in call order."""
    masks = {op.mask for op in graph.ops if isinstance(op, FloatAttention)}
    present = {op.name: op for op in graph.ops if isinstance(op, FloatInput)}
    ordered = []
    for node in program.graph.nodes:
        if node.name in present:
            ordered.append(present[node.name])
        elif node in importer.inputs:
            kind = "mask" if node.name in masks else "tokens"
            ordered.append(FloatInput(str(node.name), kind, importer.inputs[node]))
    rest = [op for op in graph.ops if not isinstance(op, FloatInput)]
    used = {name for op in rest for name in operands(op)}
    used |= {name for name, _ in graph.outputs}
    for op in ordered:
        if op.name not in used:
            warnings.warn(f"input {op.name!r} has no effect", UserWarning, 3)
    graph.ops[:] = [*ordered, *rest]
