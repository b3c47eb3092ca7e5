"""Modules that another tool has prepared, as ones that `torch.export` and the importer know.

Masks (`torch.nn.utils.prune`, `torch.ao.pruning`, any parametrisation) need nothing: the exported
graph multiplies them into the weights, which is constant. What does need something: compressed 2:4
weights (`torch.sparse`) are expanded, INT8 weights of torchao become fake-quantised ones, and fake
quantisation that still looks at its own switches (`FakeQuantize`) becomes the plain operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.sparse import SparseSemiStructuredTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from sw.compiler.errors import CompileError, first_line

__all__ = ["adapt"]


class _FixedLevels(nn.Module):
    """What a `FakeQuantize` does once its levels stay."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, lowest: int, highest: int, axis) -> None:
        super().__init__()
        self.lowest, self.highest, self.axis = int(lowest), int(highest), axis
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.detach().clone())

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
    for name, tensor in list(module.named_parameters(remove_duplicate=False)):
        if isinstance(tensor, SparseSemiStructuredTensor):
            _expand(module, name, tensor)
        elif is_traceable_wrapper_subclass(tensor):
            _fake_quantise(module, name, tensor)
    for name, part in list(module.named_modules()):
        if not (hasattr(part, "fake_quant_enabled") and hasattr(part, "observer_enabled")):
            continue  # torch.ao and torchao have a class each
        enabled = int(part.fake_quant_enabled[0])  # pyright: ignore
        if enabled and int(part.observer_enabled[0]):  # pyright: ignore
            own = type(part).__module__.startswith("torchao")
            tool = "torchao.quantization.pt2e" if own else "torch.ao.quantization"
            raise CompileError(
                f"the fake quantisation {name!r} still observes: apply {tool}.disable_observer to "
                "the module first"
            )
        fixed = nn.Identity()
        if enabled:
            axis = int(part.ch_axis) if part.is_per_channel else None  # pyright: ignore
            limits: Any = part.quant_min, part.quant_max
            fixed = _FixedLevels(part.scale, part.zero_point, *limits, axis)  # pyright: ignore
        owner, _, leaf = name.rpartition(".")
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


def _fake_quantise(module: nn.Module, name: str, tensor: Any) -> None:
    """Replace a torchao `Int8Tensor`: its integers times its steps, fake-quantised again."""
    kind = type(tensor).__name__
    data, scale, zero = (getattr(tensor, key, None) for key in ("qdata", "scale", "zero_point"))
    reason = ""
    if data is None or scale is None or data.dtype != torch.int8 or data.shape != tensor.shape:
        reason = "is not INT8"
    elif scale.numel() not in (1, scale.shape[0]) or len(data) % scale.numel():
        reason = "has scales along its inputs"
    elif zero is not None and zero.any():
        reason = "has zero points"
    elif getattr(tensor, "act_pre_scale", None) is not None:
        reason = "scales its input"
    elif getattr(tensor, "act_quant_scale", None) is not None:
        reason = "gives its input a scale"
    if reason:
        raise CompileError(
            f"parameter {name!r}, a {kind}, {reason}: quantise it with torchao's "
            "Int8WeightOnlyConfig() or Int8DynamicActivationInt8WeightConfig(), or give it in float"
        )
    assert data is not None and scale is not None
    steps = scale.detach().float().flatten()
    axis = 0 if steps.numel() > 1 else None
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    if axis is None:
        steps, zeros = steps[0], zeros[0]
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    dense = data.float() * scale.float()
    setattr(owner, leaf, nn.Parameter(dense, requires_grad=False))
    levels = _FixedLevels(steps, zeros, -128, 127, axis)
    parametrize.register_parametrization(owner, leaf, levels, unsafe=True)
