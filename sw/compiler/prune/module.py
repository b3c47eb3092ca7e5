"""The same cuts in an ordinary `nn.Module`: a copy whose linears are smaller.

Linears are found by their place in the module. What counts heads is found by its name in the
modules around the queries: `num_heads`, `all_head_size`. Whether the copy gives what the cut graph
gives is then for the caller to see: a `forward` may say shapes in other ways.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatLinear
from sw.compiler.prune.blocks import Block
from sw.compiler.quantise.named import place_name, sites

__all__ = ["module_blocks", "set_linear", "shrunk_module"]


def set_linear(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Give `linear` these parameters, and their shape."""
    linear.out_features, linear.in_features = weight.shape
    dtype = linear.weight.dtype
    linear.weight = nn.Parameter(weight.to(dtype).contiguous())
    kept = None if bias is None else nn.Parameter(bias.to(dtype).contiguous())
    linear.register_parameter("bias", kept)


def _linear(module: nn.Module, place: str, ops: Sequence[FloatLinear]) -> nn.Linear | None:
    """The linear at this place, if its weights are these operations', one after another."""
    try:
        found = module.get_submodule(place_name(place))
    except AttributeError:
        return None
    if type(found) is not nn.Linear:
        return None
    weight = np.concatenate([op.weight for op in ops])
    return found if np.array_equal(found.weight.detach().float().numpy(), weight) else None


def module_blocks(module: nn.Module, graph: FloatGraph, blocks: Sequence[Block]) -> list[Block]:
    """Those of `blocks` whose linears are `nn.Linear`s of `module`, `graph` being its graph."""
    own = {
        op.name
        for place, ops in sites(graph).items()
        for op in ops
        if _linear(module, place, ops) is not None
    }
    return [block for block in blocks if own >= {block.reader, *block.writers}]


def shrunk_module(
    module: nn.Module, graph: FloatGraph, cut: FloatGraph, blocks: Sequence[Block]
) -> nn.Module:
    """A copy of `module` with the linears of `cut`.

    graph: of `module`; cut: the same graph with fewer heads and channels in some `blocks`.
    """
    result = copy.deepcopy(module)
    after = sites(cut)
    for place, before in sites(graph).items():
        if all(a is b for a, b in zip(before, after[place], strict=True)):
            continue
        linear = _linear(module, place, before)
        if linear is None:  # its weights are computed: nothing to write them to
            continue
        found = result.get_submodule(place_name(place))
        assert isinstance(found, nn.Linear)
        weight = torch.from_numpy(np.concatenate([op.weight for op in after[place]]))
        biases = [op.bias for op in after[place] if op.bias is not None]
        set_linear(found, weight, torch.from_numpy(np.concatenate(biases)) if biases else None)
    places = {op.name: place for place, ops in after.items() for op in ops}
    heads = {op.name: op.heads for op in cut.ops if isinstance(op, FloatAttention)}
    for block in blocks:
        if block.attention is not None:
            _set_heads(result, block, places[block.writers[0]], heads[block.attention])
    return result


def _set_heads(module: nn.Module, block: Block, query: str, left: int) -> None:
    """Change what counts heads in the modules between the queries and what holds the block."""
    path = place_name(query).split(".")[:-1]
    shared = _common(path, block.name.split(".")[:-1])
    for depth in range(len(shared), len(path) + 1):
        around = module.get_submodule(".".join(path[:depth]))
        for name, value in list(vars(around).items()):
            if type(value) is not int or "head" not in name:
                continue
            if value == block.groups and "size" not in name and "dim" not in name:
                setattr(around, name, left)
            elif value == block.groups * block.width and name.startswith("all"):
                setattr(around, name, left * block.width)


def _common(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """The parts with which both begin."""
    found = []
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        found.append(x)
    return found
