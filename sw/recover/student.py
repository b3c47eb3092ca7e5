"""An exported module that shows what happens inside it: inputs of linears, hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sw.compiler.errors import CompileError, first_line

__all__ = ["Linear", "Model", "group_by_input"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Linear:
    """A linear of the graph. weight, bias: names of its parameters; source: node it reads."""

    node: str
    weight: str
    bias: str | None
    source: str


class _Stop(Exception):
    """The value that was wanted is known."""


class _Tap(fx.Interpreter):
    """Executes a graph, keeping the values of some nodes; stops after `last`, if given."""

    def __init__(self, module: fx.GraphModule, kept: Iterable[str], last: str | None = None):
        super().__init__(module)
        self.kept, self.last = set(kept), last
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.kept:
            self.found[n.name] = value
        if n.name == self.last:
            raise _Stop
        return value


class Model:
    """An executable copy of an exported program.

    linears: those with weights of their own, by the name of the weight. hidden: names of the
    layer norms' results.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.module = program.module()
        for name, parameter in list(self.module.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            own = nn.Parameter(parameter.detach().clone())
            setattr(self.module.get_submodule(owner), leaf, own)
        self.module.graph.eliminate_dead_code()
        nodes = list(self.module.graph.nodes)
        self.inputs = [n.name for n in nodes if n.op == "placeholder"]
        self.hidden = [n.name for n in nodes if n.target is aten.layer_norm.default]
        self.linears = {
            n.args[1].target: Linear(
                n.name,
                n.args[1].target,
                n.args[2].target if len(n.args) > 2 and n.args[2] is not None else None,
                n.args[0].name,
            )
            for n in nodes
            if n.target is aten.linear.default and n.args[1].op == "get_attr"
        }
        self.parameters = dict(self.module.named_parameters())

    def trainable(self) -> list[str]:
        """Parameters that the outputs depend on, but for embedding tables, in order."""
        used = {n.target for n in self.module.graph.nodes if n.op == "get_attr"}
        tables = {
            n.args[0].target
            for n in self.module.graph.nodes
            if n.target is aten.embedding.default and n.args[0].op == "get_attr"
        }
        return [name for name in self.parameters if name in used - tables]

    def parameter(self, name: str) -> Tensor:
        """Data of a parameter, to read or to write in place."""
        return self.parameters[name].data

    def _execute(self, tap: _Tap, inputs: Sequence[Tensor]) -> object:
        try:
            return tap.run(*inputs, enable_io_processing=False)
        except (RuntimeError, IndexError) as error:
            raise CompileError(f"the model refuses these inputs: {first_line(error)}") from None

    def run(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """(float outputs, hidden states) for flat `inputs`. Raises `CompileError`."""
        tap = _Tap(self.module, self.hidden)
        outputs = [
            result
            for result in pytree.tree_leaves(self._execute(tap, inputs))
            if isinstance(result, Tensor) and result.is_floating_point()
        ]
        return outputs, [tap.found[name] for name in self.hidden]

    def inputs_of(self, weight: str, inputs: Sequence[Tensor]) -> np.ndarray:
        """Rows [rows, K], float64, that the linear of this weight reads."""
        source = self.linears[weight].source
        tap = _Tap(self.module, [source], source)
        with suppress(_Stop):
            self._execute(tap, inputs)
        value = tap.found[source]
        return value.reshape(-1, value.shape[-1]).double().numpy()


def group_by_input(model: Model, names: Iterable[str]) -> list[list[str]]:
    """Names of linears in order of execution, those that read the same value together."""
    wanted, groups = set(names), {}
    for name, linear in model.linears.items():
        if name in wanted:
            groups.setdefault(linear.source, []).append(name)
    return list(groups.values())
