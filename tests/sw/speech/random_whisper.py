"""Whispers of few features and random weights."""

from __future__ import annotations

import os

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

__all__ = ["BINS", "SEED", "random_spectrogram", "random_whisper"]

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
BINS = 20


def random_whisper(
    rng: np.random.Generator, rows: int, heads: int = 2
) -> WhisperForConditionalGeneration:
    """One layer each; `rows` of the encoder, texts of up to 24 tokens of 70."""
    torch.manual_seed(int(rng.integers(1 << 31)))
    config = WhisperConfig(
        vocab_size=70,
        num_mel_bins=BINS,
        d_model=16 * heads,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=rows,
        max_target_positions=24,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    module = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "norm" not in name:
                value.mul_(6.0 if value.dim() > 1 else 1.0)
    return module


def random_spectrogram(rng: np.random.Generator, rows: int) -> np.ndarray:
    """[bins, 2*rows], about as large as Whisper's."""
    return rng.uniform(-1, 1.5, (BINS, 2 * rows)).astype(np.float32)
