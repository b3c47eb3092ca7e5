"""Small encoders of random shapes whose heads and hidden channels can be cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

__all__ = ["Encoder", "Layer", "batches"]


class Layer(nn.Module):
    """Attention and a feed-forward network, norms behind both, as in BERT."""

    def __init__(self, hidden: int, heads: int, dim: int, inner: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim
        self.query, self.key, self.value = (nn.Linear(hidden, heads * dim) for _ in range(3))
        self.out = nn.Linear(heads * dim, hidden)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

        y = scaled_dot_product_attention(*map(heads, (self.query(x), self.key(x), self.value(x))))
        x = self.first(x + self.out(y.transpose(1, 2).flatten(2)))
        return self.second(x + self.down(gelu(self.up(x))))


class Encoder(nn.Sequential):
    """Layers one after another."""

    def __init__(self, seed: int, layers: int, hidden: int, heads: int, dim: int, inner: int):
        torch.manual_seed(seed)
        super().__init__(*(Layer(hidden, heads, dim, inner) for _ in range(layers)))
        for parameter in self.parameters():
            if parameter.dim() == 2:  # as far from the mean as those of trained models
                parameter.data.mul_(3)
        self.eval()


def batches(seed: int, count: int, tokens: int, hidden: int) -> list[tuple[Tensor]]:
    """Batches of two sequences whose features depend on one another."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(hidden, hidden, generator=generator) / hidden**0.5
    return [(torch.randn(2, tokens, hidden, generator=generator) @ mix,) for _ in range(count)]
