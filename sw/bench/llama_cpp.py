"""llama.cpp's arithmetic, emulated on a float module: what its CPU kernels lose.

Its products take both operands in blocks of 32: activations as Q8 (a half-precision scale, INT8),
weights as the file has them. Products and sums of a block are exact there, and what blocks add up
to is float32; so a float module whose linears read rounded inputs gives the same but for rounding
in float32. Not emulated: keys and values in half precision, and that the sum of a block, which
Q4_1's minimum multiplies, is kept in half precision (both are small beside the inputs' rounding).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["BLOCK", "q8_blocks", "q8_inputs", "with_q8_weights"]

BLOCK = 32


def q8_blocks(x: torch.Tensor) -> torch.Tensor:
    """Each 32 values of the last dimension as INT8 with a scale of half precision: Q8_0.

    Raises `ValueError` for a dimension that is no multiple of 32.
    """
    if x.shape[-1] % BLOCK:
        raise ValueError(f"blocks of {BLOCK} do not divide {x.shape[-1]} features")
    blocks = x.float().unflatten(-1, (-1, BLOCK))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks / scale, 0.0)
    rounded = torch.copysign(torch.floor(steps.abs() + 0.5), steps)  # C's roundf
    return (rounded * scale.half().float()).flatten(-2).to(x.dtype)


@contextlib.contextmanager
def q8_inputs(module: nn.Module) -> Iterator[None]:
    """While it lasts, all linears of a module read their inputs as `q8_blocks`."""
    handles = [
        child.register_forward_pre_hook(lambda _module, inputs: (q8_blocks(inputs[0]),))
        for child in module.modules()
        if isinstance(child, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def with_q8_weights(module: nn.Module) -> nn.Module:
    """A copy whose linears and embeddings have weights in `q8_blocks`."""
    result = copy.deepcopy(module)
    with torch.no_grad():
        for weight in {
            child.weight
            for child in result.modules()
            if isinstance(child, nn.Linear | nn.Embedding)
        }:
            weight.copy_(q8_blocks(weight))
    return result
