"""Modules and exported programs as functional graphs of exactly the example's shapes.

`torch.export` records in-place changes as they are written, also those through views. Its own
decomposition turns every one into operations on whole values (`slice_scatter` and its like), which
the importer lowers or refuses as any other; what is left to check is what would outlive a call.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sw.compiler.capture.adapt import adapt
from sw.compiler.capture.attributes import export_once
from sw.compiler.capture.decompositions import DECOMPOSITIONS
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.errors import CompileError, UnsupportedOperation, first_line

__all__ = ["functional_program", "private_copy", "stored_tensors"]


def functional_program(
    module: nn.Module | ExportedProgram,
    example_inputs: object = (),
    example_kwargs: Mapping[str, object] | None = None,
) -> tuple[ExportedProgram, list]:
    """(a program without in-place operations, its example inputs in call order).

    The caller's module, its buffers and its exported program stay as they are.

    Raises `CompileError`; `UnsupportedOperation` for what changes a buffer or a parameter.
    """
    if isinstance(module, ExportedProgram):
        _check_tensors(module)
        program = module
        if _is_dynamic(program):
            program = _fixed(program, example_inputs, example_kwargs)
    elif isinstance(module, nn.Module):
        args, kwargs = _example(example_inputs, example_kwargs)
        private = private_copy(module)
        name = type(module).__name__
        program = export_once(private, lambda: _export(private, args, kwargs, name))
    else:
        raise CompileError(
            f"a {type(module).__name__} cannot be compiled: give an nn.Module (a function goes "
            "into one's forward) or what torch.export made of one"
        )
    try:
        if _needs_decomposition(program):
            with _quiet():
                program = program.run_decompositions(DECOMPOSITIONS)
    except Exception as error:
        raise _refusal(type(module).__name__, error) from error
    _check_functional(program)
    return program, _example_values(program)


def private_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode and float32, ready for `torch.export`; it shares what needs no change.

    Raises `CompileError` for parameters that cannot be compiled.
    """
    private = _private(module)
    adapt(private)
    _check_tensors(private)
    _widen(private)
    return private


def stored_tensors(program: ExportedProgram) -> dict[str, Tensor]:
    """Parameters, buffers and constants by the name of their placeholder."""
    signature = program.graph_signature
    values: dict[str, Any] = {**program.constants, **program.state_dict}
    places = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {name: values[key].detach() for name, key in places.items()}


def _needs_decomposition(program: ExportedProgram) -> bool:
    """Whether something is changed in place, fused, or in a graph of its own; else the graph is
    functional as it is, and half of the time is saved."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        known = schema is not None or node.op in ("placeholder", "output")
        if not known and getattr(node.target, "__name__", "") != "getitem":
            return True
        if node.target in DECOMPOSITIONS or (schema is not None and schema.is_mutable):
            return True
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- inputs -----------------------------------------------------------------------------------


def _tensor(label: object, value: object) -> object:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value, order="C"))
    if not isinstance(value, Tensor):
        return value
    if value.numel() == 0:
        raise CompileError(f"example input {label!r} is empty: its shape is {tuple(value.shape)}")
    if not value.is_floating_point():
        return value.clone()  # torch.export takes one tensor given twice for one input
    if not value.isfinite().all():
        raise CompileError(f"example input {label!r} holds NaN or infinity")
    return value.detach().float().clone()


def _example(inputs: object, kwargs: Mapping[str, object] | None) -> tuple[tuple, dict]:
    named = dict(kwargs or {})
    if isinstance(inputs, Mapping):
        named.update(inputs)
        inputs = ()
    elif isinstance(inputs, Tensor | np.ndarray):
        inputs = (inputs,)
    args = tuple(_tensor(i, item) for i, item in enumerate(inputs))  # pyright: ignore
    named = {key: _tensor(key, item) for key, item in named.items()}
    if not args and not named:
        raise CompileError("example inputs are needed: their shapes fix the program's shapes")
    return args, named


def _example_values(program: ExportedProgram) -> list:
    """Example values of the user's inputs, flat; zeros where the program has none."""
    shapes = [node.meta.get("val") for node in _user_inputs(program)]
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        flat = pytree.tree_leaves((args, kwargs))
        if len(flat) == len(shapes):
            return flat
    return [
        torch.zeros(tuple(value.shape), dtype=value.dtype) if isinstance(value, Tensor) else value
        for value in shapes
    ]


def _user_inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    names = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]


# --- the module -------------------------------------------------------------------------------


def _check_tensors(module: nn.Module | ExportedProgram) -> None:
    for name, tensor in module.named_parameters():
        if is_lazy(tensor):
            raise CompileError(f"parameter {name!r} has no shape yet: call the module once")
        if tensor.is_meta:
            raise CompileError(f"parameter {name!r} is on device meta: load its values first")
        if is_traceable_wrapper_subclass(tensor):
            continue  # of an exported program, whose graph says what it means
        # Not buffers: those of additive masks hold -inf on purpose.
        if not tensor.isfinite().all():
            raise CompileError(f"parameter {name!r} holds NaN or infinity")


def _private(module: nn.Module) -> nn.Module:
    """A copy in eval mode that may change. It shares parameters and buffers, whose values tracing
    never touches; other tensors that it holds are its own."""
    shared: dict[int, object] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                shared[id(value)] = value.detach().clone()  # PyTorch refuses to copy these
    try:
        with _quiet():
            module = copy.deepcopy(module, shared)
    except Exception as error:
        raise CompileError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}): compile what "
            "torch.export makes of it"
        ) from error
    for part in module.modules():
        part.training = False
    return module


def _widen(module: nn.Module) -> None:
    """Parameters and buffers in float32, as the integers are calibrated against."""
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None and _is_other(tensor):
                part._parameters[name] = nn.Parameter(tensor.detach().float(), requires_grad=False)
        for name, tensor in part._buffers.items():
            if tensor is not None and _is_other(tensor):
                part._buffers[name] = tensor.float()


def _is_other(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bfloat16, torch.float16, torch.float64)


def _export(module: nn.Module, args: tuple, kwargs: dict, name: str) -> ExportedProgram:
    try:
        with _quiet():
            return torch.export.export(module, args, kwargs or None, strict=False)
    except Exception as error:
        raise _refusal(name, error) from error


def _refusal(name: str, error: Exception) -> CompileError:
    text = first_line(error)
    changed = re.match(r"Constant (\S+) is mutated", text)
    if changed:
        return CompileError(
            f"the forward of {name} changes its tensor {changed[1]!r} in place, which a program "
            "cannot keep: change a copy of it"
        )
    return CompileError(f"torch.export refuses {name}: {text}")


# --- exported programs ------------------------------------------------------------------------


def _is_dynamic(program: ExportedProgram) -> bool:
    return bool(program.range_constraints)


def _fixed(program: ExportedProgram, inputs: object, kwargs) -> ExportedProgram:
    """A program of dynamic shapes at the shapes of these inputs, or of its own example's."""
    if inputs == () and not kwargs:
        if program.example_inputs is None:
            raise CompileError(
                "the exported program has dynamic shapes and no example: give example inputs"
            )
        args, named = program.example_inputs
    else:
        args, named = _example(inputs, kwargs)
    return _export(program.module(check_guards=False), tuple(args), dict(named), "the program")


# --- what is left to check --------------------------------------------------------------------


def _check_functional(program: ExportedProgram) -> None:
    """Nothing may remain whose effect outlives the call or the operation."""
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    for kind, changed in (
        ("buffer", signature.buffers_to_mutate),
        ("parameter", signature.parameters_to_mutate),
    ):
        for name, target in changed.items():
            reason = (
                f"the module's forward changes its {kind} {target!r}, which a program cannot keep"
            )
            if any("moving_avg_obs" in str(n.target) for n in nodes[name].all_input_nodes):
                reason = (
                    f"its fake quantisation observes ({target!r}): apply convert_pt2e and export "
                    "again, or give the module itself with its observers disabled"
                )
            raise refuse(nodes[name], reason)
    for name, target in signature.user_inputs_to_mutate.items():
        warnings.warn(
            f"the module changes its input {target!r} in place at {place_of(nodes[name])}; "
            "the program leaves the input as it is",
            UserWarning,
            4,
        )
    for node in program.graph.nodes:
        if node.op == "get_attr":
            raise refuse(node, "control flow")
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            raise UnsupportedOperation(
                str(node.target), place_of(node), "it changes a value in place"
            )
