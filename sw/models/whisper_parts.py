"""The parts of a Whisper that are compiled: its encoder over windows, and its decoder.

Both run the layers of the unmodified module. The two convolutions are linears here. The second
one moves by two frames, so frames go in pairs, and a row of the accelerator sees all that its
result depends on: five frames of the spectrogram, from which the first convolution is computed at
three places.

    row t:  frames 2t-2 .. 2t+2  ->  first convolution at 2t-1, 2t, 2t+1  ->  second one at t
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SpeechEncoder", "TextDecoder", "cut_encoder", "windows"]

FRAMES = 5
"""Of the spectrogram in a row."""
SHIFTS = 3
"""Places of the first convolution that the second one sees."""
OUTSIDE = -16.0
"""In front of the first convolution where there is no frame: its GELU is 0."""
MARKS = 16
"""Features that say together that a row is the first one. A single one would need a weight so large
that 8 bits leave nothing of the others beside it."""
LARGE, COUNTS = 0.999, 0.25
"""Share of a feature's weights in the head that are smaller than the one that stands for them; and
how far a feature's scale follows how much it counts instead of its weights. From 0.15 to 0.35 it
makes little difference (decision 0038)."""


def windows(features: np.ndarray) -> np.ndarray:
    """Rows of the encoder for a spectrogram [bins, 2*rows]: [rows, 5*bins + 16].

    The last features say that the row is the first one: there the place in front is none.
    """
    frames = features.shape[1]
    padded = np.pad(features.T, ((2, 1), (0, 0)))
    rows = [padded[n : n + frames : 2] for n in range(FRAMES)]
    first = np.zeros((frames // 2, MARKS), features.dtype)
    first[0] = 1
    return np.concatenate([*rows, first], axis=1)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data, linear.bias.data = weight, bias
    return linear


class SpeechEncoder(nn.Module):
    """From `windows` [1, rows, 5*bins + 16] to the keys and values of each layer of the decoder.

    Results: (k, v) of the first layer, then of the next ones, each [1, rows, hidden].
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        encoder = module.model.encoder
        conv1, conv2 = encoder.conv1, encoder.conv2
        hidden, bins, taps = conv1.weight.shape
        weight = torch.zeros(SHIFTS * hidden, FRAMES * bins + MARKS)
        for place in range(SHIFTS):
            rows = slice(place * hidden, (place + 1) * hidden)
            columns = slice(place * bins, (place + taps) * bins)
            weight[rows, columns] = conv1.weight.detach().permute(0, 2, 1).reshape(hidden, -1)
        weight[:hidden, -MARKS:] = OUTSIDE / MARKS
        self.first = _linear(weight, conv1.bias.detach().repeat(SHIFTS))
        second = conv2.weight.detach().permute(0, 2, 1).reshape(hidden, -1)
        self.second = _linear(second, conv2.bias.detach())
        self.positions = encoder.embed_positions.weight
        self.layers, self.layer_norm = encoder.layers, encoder.layer_norm
        attentions = [layer.encoder_attn for layer in module.model.decoder.layers]
        self.keys = nn.ModuleList(attention.k_proj for attention in attentions)
        self.values = nn.ModuleList(attention.v_proj for attention in attentions)

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        x = functional.gelu(self.first(rows))
        x = functional.gelu(self.second(x)) + self.positions
        for layer in self.layers:
            x = layer(x, None)
        x = self.layer_norm(x)
        results: list[Tensor] = []
        for key, value in zip(self.keys, self.values, strict=True):
            results += [key(x), value(x)]
        return tuple(results)


def _balanced(decoder: Any, head: Any) -> tuple[Any, nn.Linear]:
    """The same decoder and head, but each feature of the last norm divided, and its weights in the
    head multiplied, by a number that makes the weights of all features about as large.

    A row of the head has one step for all of its 8-bit weights, which the largest decides; inputs
    have 16 bits, so they may be as different as they like. How much a feature counts follows from
    the norm's gain and bias [as in Lin et al., AWQ, 2023, which takes it from texts].
    """
    norm = copy.copy(decoder.layer_norm)
    gain, bias = norm.weight.detach(), norm.bias.detach()
    large = head.weight.detach().abs().quantile(LARGE, dim=0).clamp_min(1e-6)
    counts = torch.hypot(gain, bias).clamp_min(1e-6)
    scale = counts**COUNTS / large ** (1 - COUNTS)
    norm._parameters = {"weight": nn.Parameter(gain / scale), "bias": nn.Parameter(bias / scale)}
    same = copy.copy(decoder)
    same._modules = {**decoder._modules, "layer_norm": norm}
    scaled = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    scaled.weight = nn.Parameter(head.weight.detach() * scale)
    return same, scaled


def cut_encoder(encoder: Any, rows: int) -> Any:
    """The same encoder for windows that give so many rows: the first of its positions."""
    same, positions = copy.copy(encoder), encoder.embed_positions.weight.detach()
    same.config = copy.copy(encoder.config)
    same.config.max_source_positions = rows
    same._modules = {
        **encoder._modules,
        "embed_positions": nn.Embedding.from_pretrained(positions[:rows]),
    }
    return same


class TextDecoder(nn.Module):
    """From token numbers [1, tokens] and what the encoder found [1, rows, hidden] to logits."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.decoder, self.head = _balanced(module.model.decoder, module.proj_out)

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        found = self.decoder(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False
        )
        return self.head(found.last_hidden_state)
