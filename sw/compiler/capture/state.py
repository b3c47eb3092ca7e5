"""What the import of one exported graph knows so far; every handler of an operation gets it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hw.isa import Function
from sw.compiler.capture.builder import GraphBuilder
from sw.compiler.capture.evaluate import evaluate
from sw.compiler.capture.fake_quantise import FakeQuantisation
from sw.compiler.capture.host_part import HostPart
from sw.compiler.capture.nodes import refuse
from sw.compiler.capture.symbolic import Activation, Hosted, Pointwise
from sw.compiler.graph.operations import FloatAttention, FloatInput

__all__ = ["Capture"]


class Capture:
    """Symbolic values of the nodes so far, and the graph that they make.

    Members
    -------
    values: symbolic value of each node (`symbolic.py`). inputs: shapes of the module's integer
    inputs. examples: values of those. host: what the host is to compute. functions: those of one
    value that there are. abilities: what there is, in words.
    """

    functions = frozenset({Function.RELU, Function.GELU_ERF, Function.GELU_TANH})
    abilities = "linears, layer norm, ReLU, GELU, attention, embeddings and sums"

    def __init__(self) -> None:
        self.builder = GraphBuilder()
        self.values: dict[torch.fx.Node, object] = {}
        self.inputs: dict[torch.fx.Node, tuple[int, ...]] = {}
        self.examples: dict[torch.fx.Node, Tensor] = {}
        self.fake = FakeQuantisation(self.builder, self.values)
        self.host = HostPart(self.builder, self.values)

    @property
    def constants(self) -> dict[torch.fx.Node, Tensor]:
        return {n: v for n, v in self.values.items() if isinstance(v, Tensor)}

    def execute(self, node: torch.fx.Node, probes: Mapping[torch.fx.Node, Tensor]) -> object:
        """Value of a node that depends on integer inputs only, for these inputs."""
        return evaluate(node, {**self.constants, **probes}, {})

    def grouped(self, node: torch.fx.Node, value: Activation, heads: int) -> Activation:
        """Keys or values with fewer heads than the queries, as many as they."""
        raise refuse(node, "grouped queries are not supported")

    def kv_heads(self, keys: Tensor, values: Tensor) -> int:
        """How many heads of keys and values [heads, dim], given as columns, to keep; 0 for all."""
        return 0

    def memory_of(self, name: str) -> FloatInput | None:
        """The input of other rows than the text's that a value is computed from, if it is."""
        return None

    def check_attention(self, node: torch.fx.Node, op: FloatAttention, masks: tuple) -> None:
        """Refuse an attention that may not be in this graph. masks: as given, see `masks.py`."""

    def as_activation(self, node: torch.fx.Node, value: object) -> Activation:
        """The operand of a node as an activation of the accelerator; refuses others."""
        if isinstance(value, Activation):
            return value
        if isinstance(value, Pointwise):
            raise value.error
        if isinstance(value, Hosted):
            raise refuse(node, "its operand is computed on the host, behind the accelerator")
        raise refuse(node, "its operand is not an activation")
