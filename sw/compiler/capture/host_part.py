"""What the host is to compute, collected while a graph is imported, as one `HostGraph`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.builder import GraphBuilder
from sw.compiler.capture.nodes import place_of
from sw.compiler.capture.symbolic import Activation, Derived, Windows
from sw.compiler.graph.host import HostCall, HostGraph, HostMask, Ref, TorchName
from sw.compiler.graph.inputs import FloatInput

__all__ = ["HostPart"]


class HostPart:
    """Feeds that the accelerator reads, and results that the host makes of its outputs.

    Members
    -------
    feeds: by name. outputs: values that the accelerator gives, with the shape in which the host
    sees them.
    """

    def __init__(self, builder: GraphBuilder, values: dict[torch.fx.Node, object]) -> None:
        self.builder = builder
        self.values = values
        self.feeds: dict[str, FloatInput] = {}
        self.outputs: list[tuple[str, tuple[int, ...]]] = []
        self._masks: dict[tuple, HostMask] = {}
        self._wanted: list[torch.fx.Node] = []
        self._constants: dict[str, np.ndarray] = {}
        self._halves: dict[str, str] = {}
        self._own: list[HostCall] = []

    # --- feeds --------------------------------------------------------------------------------

    def feed(self, node: torch.fx.Node, kind: str, shape: tuple[int, ...]) -> str:
        """Name of the feed with the values of a node that depends on integer inputs only."""
        if node.name not in self.feeds:
            item = FloatInput(node.name, kind, shape, place_of(node))
            self.feeds[node.name] = item
            self._wanted.append(node)
            self.builder.put(item)
        return node.name

    def mask(
        self, parts: Sequence, hidden: tuple[bool, ...], causal: bool, shape: tuple[int, int]
    ) -> str:
        """Name of the key mask that these parts make; each a `Derived` value or a constant."""
        nodes = [getattr(part, "node", None) for part in parts]
        key = (*[id(p) if n is None else n for p, n in zip(parts, nodes, strict=True)], hidden)
        if key not in self._masks:
            name = self.builder.fresh("key_mask")
            refs = tuple(
                self._constant(part, f"{name}.{i}") if node is None else Ref(node.name)
                for i, (part, node) in enumerate(zip(parts, nodes, strict=True))
            )
            self._wanted += [node for node in nodes if node is not None]
            self._masks[key] = HostMask(name, refs, hidden, causal)
            self.feeds[name] = FloatInput(name, "mask", shape)
        return self._masks[key].name

    def padded(self, source: FloatInput, front: int, back: int) -> FloatInput:
        """A float input with rows of zeros around each sequence: room for constant rows."""
        name = self.builder.fresh(f"{source.name}_padded")
        *batch, tokens, features = source.shape
        shape = (*batch, tokens + front + back, features)
        args = (Ref(source.name), [0, 0, front, back])
        self._own.append(HostCall(name, "aten.constant_pad_nd.default", args, {}))
        self.feeds.pop(source.name, None)  # nothing else reads it
        self.feeds[name] = FloatInput(name, "float", shape)
        return self.feeds[name]

    def patches(
        self,
        name: str,
        source: str,
        shape: tuple[int, int, int],
        kernel: list[int],
        dilation: list[int],
        padding: list[int],
        stride: list[int],
    ) -> str:
        """Name of the feed with what a convolution sees of a picture at each of its places, [batch,
        places, values]; sizes as `im2col` takes them."""
        name = self.builder.put(FloatInput(name, "float", shape))
        columns, args = f"{name}.columns", (Ref(source), kernel, dilation, padding, stride)
        self._own.append(HostCall(columns, "aten.im2col.default", args, {}))
        self._own.append(HostCall(name, "aten.transpose.int", (Ref(columns), 1, 2), {}))
        self.feeds[name] = FloatInput(name, "float", shape)
        return name

    def windows(self, name: str, source: str, shape: tuple[int, int, int], how: Windows) -> str:
        """Name of the feed with what a convolution sees of a sound [batch, channels, length] at
        each of its places, [batch, places, values (channel, offset)]."""
        name = self.builder.put(FloatInput(name, "float", shape))
        columns = self._unfolded(f"{name}.windows", Ref(source), how)
        self._own.append(HostCall(name, "aten.transpose.int", (columns, 1, 2), {}))
        self.feeds[name] = FloatInput(name, "float", shape)
        return name

    def windows_of_windows(
        self, name: str, source: str, shape: tuple[int, int, int], inner: Windows, outer: Windows
    ) -> str:
        """The same of all places of an inner convolution that an outer one sees, [batch, places of
        the outer one, values (place, channel, offset)]; if the outer one is padded, with a value
        behind those of each place: -1 where there is none, else 0."""
        name = self.builder.put(FloatInput(name, "float", shape))

        def call(part: str, target: str, *args: Any) -> Ref:
            self._own.append(HostCall(f"{name}.{part}", target, args, {}))
            return Ref(f"{name}.{part}")

        batch, length, values = shape
        width = values // outer.kernel
        found = self._unfolded(f"{name}.inner", Ref(source), inner)
        if outer.padding:
            found = call("ones", "aten.constant_pad_nd.default", found, [0, 0, 0, 1], 1.0)
        found = self._unfolded(f"{name}.outer", found, outer)
        found = call("split", "aten.reshape.default", found, [batch, width, outer.kernel, length])
        found = call("rows", "aten.permute.default", found, [0, 3, 2, 1])
        if outer.padding:
            inside = torch.zeros(width)
            inside[-1] = 1
            inside = self._constant(inside, f"{name}.inside")
            found = call("outside", "aten.sub.Tensor", found, inside)
        args = (found, [batch, length, values])
        self._own.append(HostCall(name, "aten.reshape.default", args, {}))
        self.feeds[name] = FloatInput(name, "float", shape)
        return name

    def _unfolded(self, name: str, source: Ref, how: Windows) -> Ref:
        """[batch, channels, length] as [batch, (channel, offset), places]."""
        flat = f"{name}.flat"
        self._own.append(HostCall(flat, "aten.unsqueeze.default", (source, 2), {}))
        sizes = ([1, how.kernel], [1, how.dilation], [0, how.padding], [1, how.stride])
        self._own.append(HostCall(name, "aten.im2col.default", (Ref(flat), *sizes), {}))
        return Ref(name)

    # --- results ------------------------------------------------------------------------------

    def output(self, name: str, shape: tuple[int, ...]) -> Ref:
        """The accelerator's output of this value."""
        item = (name, shape)
        if item not in self.outputs:
            self.outputs.append(item)
        return Ref(f"output {self.outputs.index(item)}")

    def result(self, node: torch.fx.Node) -> Ref:
        """A value that the host computes, or has."""
        value = self.values[node]
        if isinstance(value, Tensor):
            return self._constant(value, node.name)
        if isinstance(value, Activation) and self._is_boundary(node):
            return self._cast(node, self.output(value.name, tuple(value.index.shape)))
        self._wanted.append(node)
        return Ref(node.name)

    # --- the graph ----------------------------------------------------------------------------

    def finish(self, graph: torch.fx.Graph, results: tuple) -> HostGraph | None:
        """Everything collected; None if there is nothing to do.

        results: of the module, each a `Ref` or a constant.
        """
        needed = self._needed()
        calls = [self._call(node) for node in graph.nodes if node in needed]
        plain = tuple(Ref(f"output {i}") for i in range(len(self.outputs)))
        if not calls and not self.feeds and results == plain:
            return None
        dtypes = {
            node.name: str(node.meta["val"].dtype).removeprefix("torch.")
            for node in graph.nodes
            if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor)
            if not isinstance(self.values.get(node), Tensor)
        }
        dtypes |= self._halves
        return HostGraph(
            (*self._own, *calls),
            self._constants,
            dtypes,
            tuple(self.feeds.values()),
            tuple(self._masks.values()),
            None if results == plain else results,
        )

    def _is_boundary(self, node: torch.fx.Node) -> bool:
        """Whether the host gets the value rather than computing it."""
        value = self.values[node]
        if isinstance(value, Activation) and node.op != "placeholder":
            return value.is_whole(self.builder.batch * self.builder.tokens)
        return isinstance(value, Tensor) or node.op == "placeholder"

    def _needed(self) -> set[torch.fx.Node]:
        """Nodes that the host executes."""
        found: set[torch.fx.Node] = set()
        stack = list(self._wanted)
        while stack:
            node = stack.pop()
            if node not in found and not self._is_boundary(node):
                found.add(node)
                stack += node.all_input_nodes
        return found

    def _constant(self, tensor: Tensor, name: str) -> Ref:
        if tensor.is_floating_point() and tensor.element_size() < 4:
            self._halves[name] = str(tensor.dtype).removeprefix("torch.")
            tensor = tensor.float()  # NumPy has no bfloat16
        self._constants[name] = tensor.detach().cpu().numpy()
        return Ref(name)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            found = self.values[value]
            if isinstance(found, Tensor):
                return self._constant(found, value.name)
            if value.op == "placeholder":
                return Ref(value.name) if isinstance(found, Activation | Derived) else found
            if isinstance(found, Activation) and self._is_boundary(value):
                return self._cast(value, self.output(found.name, tuple(value.meta["val"].shape)))
            return Ref(value.name)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return TorchName(str(value))
        if isinstance(value, torch.device):
            return TorchName("cpu")
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._argument(item) for item in value]
            return tuple(items) if type(value) is tuple else items
        return value

    def _cast(self, node: torch.fx.Node, output: Ref) -> Ref:
        """The accelerator's output in the type that the module has there."""
        dtype = node.meta["val"].dtype
        if dtype == torch.float32:
            return output
        name = f"{node.name}.cast"
        if all(call.name != name for call in self._own):
            self._own.append(HostCall(name, "aten.to.dtype", (output, TorchName(str(dtype))), {}))
        return Ref(name)

    def _call(self, node: torch.fx.Node) -> HostCall:
        own = getattr(node.target, "__name__", "") == "getitem"
        target = "getitem" if own else str(node.target)
        args, kwargs = self._argument(tuple(node.args)), self._argument(dict(node.kwargs))
        return HostCall(node.name, target, args, kwargs, place_of(node).split(", File")[0])
