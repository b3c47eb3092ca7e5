"""Small modules that the compiler's tests share, and their quantised graphs."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as functional
from torch import nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.quantise import QuantOptions, quantise

__all__ = ["Block", "example", "example_inputs", "example_module"]


class Block(nn.Module):
    """One transformer block: attention and feed-forward network, post-norm or pre-norm."""

    def __init__(
        self,
        hidden: int = 100,
        heads: int = 5,
        ffn: int = 250,
        *,
        pre_norm: bool = False,
        causal: bool = False,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.heads, self.pre_norm, self.causal = heads, pre_norm, causal
        self.activation = activation
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, ffn), nn.Linear(ffn, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, tokens, hidden = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        keys = None if mask is None else mask[:, None, None, :].bool()
        if keys is not None and self.causal:
            keys = keys & torch.ones(tokens, tokens, dtype=torch.bool).tril()
        causal = self.causal and keys is None
        y = functional.scaled_dot_product_attention(*parts, attn_mask=keys, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, hidden))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        if self.activation == "relu":
            return self.down(functional.relu(h))
        approximate = "tanh" if self.activation == "tanh" else "none"
        return self.down(functional.gelu(h, approximate=approximate))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if self.pre_norm:
            x = x + self.attend(self.norm1(x), mask)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attend(x, mask))
        return self.norm2(x + self.feed(x))


class Stack(nn.Module):
    """Blocks in a row, with one key mask."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


def example_module(kind: str = "post", *, hidden=100, heads=5, ffn=250, layers=1) -> nn.Module:
    """kind: "post", "pre", "causal" (pre-norm), "relu" (post-norm), "tanh" (pre-norm)."""
    torch.manual_seed(0)
    blocks = [
        Block(
            hidden,
            heads,
            ffn,
            pre_norm=kind in ("pre", "causal", "tanh"),
            causal=kind == "causal",
            activation={"relu": "relu", "tanh": "tanh"}.get(kind, "gelu"),
        )
        for _ in range(layers)
    ]
    return Stack(blocks).eval()


def example_inputs(batch=3, tokens=37, hidden=100, *, masked=False, seed=1) -> tuple:
    """Random activations and, if `masked`, a key mask that hides the ends of sequences."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, hidden, generator=generator)
    if not masked:
        return (x,)
    lengths = torch.randint(max(1, tokens // 2), tokens + 1, (batch, 1), generator=generator)
    return x, (torch.arange(tokens) < lengths).to(torch.int64)


@functools.cache
def example(
    kind: str = "post", *, batch=3, tokens=37, hidden=100, heads=5, ffn=250, layers=1,
    masked=False, key_block=64,
) -> tuple[nn.Module, tuple, QuantGraph]:  # fmt: skip
    """(module, inputs, quantised graph) of a small transformer."""
    module = example_module(kind, hidden=hidden, heads=heads, ffn=ffn, layers=layers)
    inputs = example_inputs(batch, tokens, hidden, masked=masked)
    graph = import_module(module, inputs)
    calibration = [example_inputs(batch, tokens, hidden, masked=masked, seed=s) for s in (2, 3)]
    return module, inputs, quantise(graph, calibration, QuantOptions(key_block=key_block))
