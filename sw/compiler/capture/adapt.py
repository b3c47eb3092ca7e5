"""Modules that another tool has prepared, as ones that `torch.export` and the importer know.

Masks (`torch.nn.utils.prune`, `torch.ao.pruning`, any parametrisation) need nothing: the exported
graph multiplies them into the weights, which is constant. What does need something: compressed 2:4
weights (`torch.sparse`) are expanded, and fake quantisation that still looks at its own switches
(`torch.ao.quantization.FakeQuantize`) becomes the plain operation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase
from torch.sparse import SparseSemiStructuredTensor

from sw.compiler.errors import CompileError, first_line

__all__ = ["adapt"]


class _FixedLevels(nn.Module):
    """What a `FakeQuantize` does once its levels stay."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.lowest, self.highest = int(module.quant_min), int(module.quant_max)  # pyright: ignore
        self.axis = int(module.ch_axis) if module.is_per_channel else None  # pyright: ignore
        self.register_buffer("scale", module.scale.detach().clone())  # pyright: ignore
        self.register_buffer("zero_point", module.zero_point.detach().clone())  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        limits = self.lowest, self.highest
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, *limits)
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, self.zero_point, self.axis, *limits
        )


def adapt(module: nn.Module) -> None:
    """Change what must change in `module`, a private copy.

    Raises `CompileError` naming the place of what cannot.
    """
    for name, tensor in list(module.named_parameters()):
        if isinstance(tensor, SparseSemiStructuredTensor):
            _expand(module, name, tensor)
    for name, part in list(module.named_modules()):
        if not isinstance(part, FakeQuantizeBase):
            continue
        enabled = int(part.fake_quant_enabled[0])  # pyright: ignore
        if enabled and int(part.observer_enabled[0]):  # pyright: ignore
            raise CompileError(
                f"the fake quantisation {name!r} still observes: apply "
                "torch.ao.quantization.disable_observer to the module first"
            )
        owner, _, leaf = name.rpartition(".")
        fixed = _FixedLevels(part) if enabled else nn.Identity()
        setattr(module.get_submodule(owner), leaf, fixed)


def _expand(module: nn.Module, name: str, tensor: SparseSemiStructuredTensor) -> None:
    try:
        dense = tensor.to_dense()
    except Exception as error:  # whatever its kernels raise where there is no GPU
        raise CompileError(
            f"parameter {name!r} holds compressed 2:4 weights that PyTorch cannot expand "
            f"here ({first_line(error)}): give it as a dense tensor with zeros"
        ) from None
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(dense, requires_grad=False))
