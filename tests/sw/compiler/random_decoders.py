"""Causal language models in plain PyTorch, their parts written in the ways people write them."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

__all__ = ["Decoder", "random_decoder"]

NORMS = ("module", "function", "square", "product", "quotient", "norm", "gain first", "layer")
ROTARY = ("half", "half sums", "pairs", "pairs sums", "none")
TABLES = ("computed", "buffer", "outer")
SHARING = ("expand", "interleave", "gqa")
ATTENTION = ("causal", "boolean", "additive", "written", "filled", "scaled queries")
FEED = ("silu", "sigmoid", "fused", "exp", "gelu", "gated gelu")


class Norm(nn.Module):
    """RMS norm (or layer norm) over the last dimension."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        self.eps = 1e-5 if kind == "quotient" else 1e-6
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width))
        self.inner: nn.Module | None = None
        if kind == "module":
            self.inner = nn.RMSNorm(width, eps=self.eps)
        if kind == "layer":
            self.inner = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is not None:
            return self.inner(x)
        if self.kind == "function":
            return functional.rms_norm(x, (self.width,), self.weight, self.eps)
        if self.kind == "square":
            y = x.to(torch.float32)
            y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
            return self.weight * y.to(x.dtype)
        if self.kind == "product":
            return (x * torch.rsqrt(torch.mean(x * x, dim=-1, keepdim=True) + self.eps)) * (
                self.weight.float()
            )
        if self.kind == "quotient":
            return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * (1 + self.weight)
        if self.kind == "norm":
            size = x.norm(2, dim=-1, keepdim=True) * self.width**-0.5
            return self.weight * (x / torch.sqrt(size * size + self.eps))
        return x * (self.weight * (x.pow(2).mean(-1, keepdim=True) + self.eps) ** -0.5)


class Rotary(nn.Module):
    """Rotary embedding of the first `width` features of heads [1, heads, tokens, dim]."""

    def __init__(self, kind: str, tables: str, width: int, context: int, factor: float) -> None:
        super().__init__()
        self.kind, self.tables, self.width, self.factor = kind, tables, width, factor
        frequencies = 1000.0 ** -(torch.arange(0, width, 2).float() / width)
        self.register_buffer("frequencies", frequencies, persistent=False)
        angles = torch.arange(context).float()[:, None] * frequencies
        self.register_buffer("cosine", angles.cos() * factor, persistent=False)
        self.register_buffer("sine", angles.sin() * factor, persistent=False)

    def angles(self, tokens: int) -> tuple[Tensor, Tensor]:
        if self.tables == "buffer":
            return self.cosine[:tokens], self.sine[:tokens]  # pyright: ignore
        if self.tables == "outer":
            angles = torch.outer(torch.arange(tokens).float(), self.frequencies)  # pyright: ignore
        else:
            angles = torch.arange(tokens)[None, :, None] * self.frequencies[None, None]  # pyright: ignore
        return angles.cos() * self.factor, angles.sin() * self.factor

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        cosine, sine = self.angles(x.shape[-2])
        rest = x[..., self.width :]
        x = x[..., : self.width]
        if self.kind == "half":
            cosine, sine = torch.cat([cosine, cosine], -1), torch.cat([sine, sine], -1)
            half = self.width // 2
            turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
            x = x * cosine + turned * sine
        elif self.kind == "half sums":
            a, b = x.chunk(2, dim=-1)
            x = torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
        elif self.kind == "pairs":
            cosine, sine = (t.repeat_interleave(2, dim=-1) for t in (cosine, sine))
            a, b = x[..., ::2], x[..., 1::2]
            x = (x * cosine) + (torch.stack((-b, a), dim=-1).flatten(-2) * sine)
        else:
            a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
            x = torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(-2)
        return torch.cat([x, rest], dim=-1) if rest.shape[-1] else x


class Attention(nn.Module):
    def __init__(self, choose: random.Random, width: int, context: int) -> None:
        super().__init__()
        self.kv_heads = choose.choice((1, 1, 2, 3))
        self.heads = self.kv_heads * choose.choice((1, 2, 3))
        self.dim = choose.choice((4, 6, 8, 12))
        self.fused = choose.random() < 0.4
        self.sharing, self.kind = choose.choice(SHARING), choose.choice(ATTENTION)
        sizes = [self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim]
        bias = choose.random() < 0.5
        self.sizes = sizes
        self.qkv = nn.Linear(width, sum(sizes), bias=bias) if self.fused else None
        self.parts = nn.ModuleList(nn.Linear(width, size, bias=bias) for size in sizes)
        self.out = nn.Linear(sizes[0], width, bias=bias)
        kind = choose.choice(NORMS[:-1])
        normed = choose.random() < 0.4
        self.norms = nn.ModuleList(Norm(kind, self.dim) for _ in "qk") if normed else None
        turned = self.dim if choose.random() < 0.6 else 2 * choose.randint(1, self.dim // 2)
        factor = choose.choice((1.0, 1.0, 1.2)) if turned == self.dim else 1.0
        self.rotary = Rotary(choose.choice(ROTARY), choose.choice(TABLES), turned, context, factor)
        mask = torch.ones(context, context, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        if self.qkv is not None:
            parts = self.qkv(x).split(self.sizes, dim=-1)
        else:
            parts = [part(x) for part in self.parts]
        q, k, v = (part.view(1, tokens, -1, self.dim) for part in parts)
        if self.norms is not None:
            q, k = self.norms[0](q), self.norms[1](k)
        q, k, v = (item.transpose(1, 2) for item in (q, k, v))
        q, k = self.rotary(q), self.rotary(k)
        times = self.heads // self.kv_heads
        grouped = self.sharing == "gqa" and self.kind in ("causal", "boolean", "additive")
        if not grouped:
            k, v = (self.repeated(item, times) for item in (k, v))
        out = self.attend(q, k, v, tokens, {"enable_gqa": True} if grouped else {})
        return self.out(out.transpose(1, 2).reshape(1, tokens, -1))

    def repeated(self, x: Tensor, times: int) -> Tensor:
        if self.sharing == "interleave":
            return x.repeat_interleave(times, dim=1)
        wide = x[:, :, None].expand(-1, -1, times, -1, -1)
        return wide.reshape(1, self.heads, *x.shape[2:])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, tokens: int, sharing: dict) -> Tensor:
        causal = self.mask[:tokens, :tokens]  # pyright: ignore
        if self.kind == "causal":
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, **sharing)
        if self.kind == "boolean":
            places = torch.arange(tokens)
            return functional.scaled_dot_product_attention(
                q, k, v, places[:, None] >= places, scale=0.3, **sharing
            )
        if self.kind == "additive":
            added = torch.full((tokens, tokens), float("-inf")).triu(1)
            return functional.scaled_dot_product_attention(q, k, v, added[None], **sharing)
        if self.kind == "written":
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.dim)
            scores = scores + torch.where(causal, 0.0, torch.finfo(torch.float32).min)
        elif self.kind == "filled":
            scores = torch.matmul(q, k.mT) * self.dim**-0.5
            scores = scores.masked_fill(~causal, float("-inf"))
        else:
            scores = (q * self.dim**-0.5) @ k.transpose(2, 3)
            scores = scores.masked_fill(causal[None, None] == 0, float("-inf"))
        return torch.softmax(scores, dim=-1, dtype=torch.float32) @ v


class Feed(nn.Module):
    def __init__(self, kind: str, width: int, inner: int, bias: bool) -> None:
        super().__init__()
        self.kind = kind
        self.up = nn.Linear(width, 2 * inner if kind == "fused" else inner, bias=bias)
        self.gate = nn.Linear(width, inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "fused":
            gate, up = self.up(x).chunk(2, dim=-1)
            return self.down(functional.silu(gate) * up)
        up, gate = self.up(x), self.gate(x)
        if self.kind == "silu":
            return self.down(functional.silu(gate) * up)
        if self.kind == "sigmoid":
            return self.down(up * (gate * torch.sigmoid(gate)))
        if self.kind == "exp":
            return self.down(gate / (1 + torch.exp(-gate)) * up)
        if self.kind == "gated gelu":
            return self.down(functional.gelu(gate, approximate="tanh") * up)
        return self.down(functional.gelu(up))


class Block(nn.Module):
    def __init__(self, choose: random.Random, width: int, context: int) -> None:
        super().__init__()
        self.first, self.second = (Norm(choose.choice(NORMS), width) for _ in range(2))
        self.attention = Attention(choose, width, context)
        inner, bias = choose.randint(9, 40), choose.random() < 0.3
        self.feed = Feed(choose.choice(FEED), width, inner, bias)
        self.parallel = choose.random() < 0.2

    def forward(self, x: Tensor) -> Tensor:
        if self.parallel:
            return x + self.attention(self.first(x)) + self.feed(self.second(x))
        x = x + self.attention(self.first(x))
        return x + self.feed(self.second(x))


class Decoder(nn.Module):
    """Token numbers [1, tokens] to logits [1, tokens, vocabulary]."""

    def __init__(self, choose: random.Random, context: int) -> None:
        super().__init__()
        width, vocabulary = choose.randint(16, 48), choose.randint(20, 60)
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width) if choose.random() < 0.3 else None
        self.scale = choose.choice((1.0, width**0.5))
        self.blocks = nn.ModuleList(Block(choose, width, context) for _ in range(1))
        self.norm = Norm(choose.choice(NORMS), width)
        self.head = nn.Linear(width, vocabulary, bias=choose.random() < 0.2)
        if choose.random() < 0.5:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) * self.scale
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def random_decoder(seed: int, context: int) -> Decoder:
    """A decoder in eval mode, all of it chosen by the seed."""
    torch.manual_seed(seed)
    model = Decoder(random.Random(seed), context).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model
