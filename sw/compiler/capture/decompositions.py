"""Operations that PyTorch fused or took apart, as the ones that the importer knows.

`torch.export` records what ran: in inference mode a whole encoder layer may be one operation, and
its own decomposition leaves kernels such as `native_layer_norm`. Written with the functions of
`torch.nn`, which stay whole, each means the same again. Second results that nobody reads vanish.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DECOMPOSITIONS"]

aten = torch.ops.aten


def _layer_norm(x: Tensor, shape: list[int], weight, bias, eps: float):
    dims = list(range(-len(shape), 0))
    deviation = torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps)
    result = functional.layer_norm(x, shape, weight, bias, eps)
    return result, x.mean(dims, keepdim=True), deviation


def _flash_attention(q, k, v, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    result = functional.scaled_dot_product_attention(
        q, k, v, attn_mask, dropout_p, is_causal, scale=scale
    )
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return result, (q @ k.transpose(-1, -2) * factor).logsumexp(-1)


def _additive(mask: Tensor | None, kind: int | None, dtype: torch.dtype) -> Tensor | None:
    """The mask as one to add to scores [batch, heads, tokens, tokens].

    The fused kernels hide keys wherever `mask` is not 0, also where the module, in training, adds
    a bias. kind: 1 for a key mask [batch, tokens].
    """
    if mask is None:
        return None
    mask = torch.zeros_like(mask, dtype=dtype).masked_fill(mask.to(torch.bool), float("-inf"))
    return mask[:, None, None, :] if kind == 1 else mask


def _multi_head_attention(
    query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight, proj_bias,
    mask=None, need_weights=True, average_attn_weights=True, mask_type=None,
):  # fmt: skip
    parts = zip((query, key, value), qkv_weight.chunk(3), qkv_bias.chunk(3), strict=True)
    q, k, v = (
        functional.linear(x, weight, bias).unflatten(-1, (num_head, -1)).transpose(1, 2)
        for x, weight, bias in parts
    )
    mask = _additive(mask, mask_type, query.dtype)
    result = functional.scaled_dot_product_attention(q, k, v, mask)
    result = functional.linear(result.transpose(1, 2).flatten(2), proj_weight, proj_bias)
    if not need_weights:
        return result, query.new_empty(0)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return result, weights.mean(1) if average_attn_weights else weights


def _encoder_layer(
    src, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, use_gelu, norm_first,
    eps, norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, ffn_weight_1, ffn_bias_1,
    ffn_weight_2, ffn_bias_2, mask=None, mask_type=None,
):  # fmt: skip
    def norm_1(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def norm_2(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    def attend(x: Tensor) -> Tensor:
        return _multi_head_attention(
            x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias,
            mask, False, True, mask_type,
        )[0]  # fmt: skip

    def feed(x: Tensor) -> Tensor:
        hidden = functional.linear(x, ffn_weight_1, ffn_bias_1)
        hidden = functional.gelu(hidden) if use_gelu else functional.relu(hidden)
        return functional.linear(hidden, ffn_weight_2, ffn_bias_2)

    if norm_first:
        src = src + attend(norm_1(src))
        return src + feed(norm_2(src))
    src = norm_1(src + attend(src))
    return norm_2(src + feed(src))


DECOMPOSITIONS: dict[torch._ops.OperatorBase, Callable] = {
    aten.native_layer_norm.default: _layer_norm,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _flash_attention,
    aten._native_multi_head_attention.default: _multi_head_attention,
    aten._transformer_encoder_layer_fwd.default: _encoder_layer,
}
