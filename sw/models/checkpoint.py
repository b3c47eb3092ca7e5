"""A language model in files, as `transformers` reads it: checked completely before it is loaded.

`transformers` fills tensors that are missing with random numbers, and drops what it does not know.
So names and shapes of all tensors are compared with the module's own first.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sw.compiler.capture.decoder import check_configuration
from sw.compiler.errors import CompileError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Checkpoint", "Shapes", "reading"]

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""


class Checkpoint(ABC):
    """One model's files. What cannot be read is a `CompileError` that names the file.

    Members
    -------
    path: as given. digest: SHA-256 of all that the model is made of. positions: that a sequence may
    have. tokens: of the tokenizer. ends: tokens that end an answer.
    """

    path: Path
    digest: str
    positions: int

    @functools.cached_property
    @abstractmethod
    def config(self) -> Any:
        """The configuration of `transformers`."""

    @functools.cached_property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    @abstractmethod
    def tokens(self) -> int: ...

    @property
    @abstractmethod
    def ends(self) -> frozenset[int]: ...

    @abstractmethod
    def _check_tensors(self, module: PreTrainedModel) -> None:
        """Compare names and shapes of the tensors with those of `module`, which is empty."""

    @abstractmethod
    def _load(self, kind: type[PreTrainedModel]) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The module in float32, and what `transformers` says about it."""

    def check(self, context: int) -> None:
        """Raises `CompileError` for what is no decoder, or has other tensors than it needs."""
        module = self._empty()
        check_configuration(module, context)
        self._check_tensors(module)
        known = self.config.get_text_config().vocab_size
        if self.tokens > known:
            raise CompileError(
                f"{self.path}: its tokenizer has {self.tokens} tokens, the model {known}"
            )

    @functools.cached_property
    def module(self) -> PreTrainedModel:
        """The unmodified module of `transformers`, in float32, all its tensors from the files."""
        with reading(self.path, "the model"):
            module, found = self._load(type(self._empty()))
        for what in ("missing", "unexpected", "mismatched"):
            if names := found.get(f"{what}_keys"):
                raise CompileError(f"{self.path}: transformers says {what}: {sorted(names)[0]}")
        for name, tensor in module.named_parameters():
            if not torch.isfinite(tensor).all():
                raise CompileError(f"{self.path}: {name} holds NaN or infinity")
        return module.eval()

    def _empty(self) -> PreTrainedModel:
        """The module without values."""
        with reading(self.path, "the model"), torch.device("meta"):
            from transformers import AutoModelForCausalLM

            return AutoModelForCausalLM.from_config(self.config, trust_remote_code=False)


def compare(path: Path, found: Shapes, wanted: Shapes, kind: str) -> None:
    """Raises `CompileError` for the first tensor that is missing, too many or of another shape."""
    for name in sorted(wanted.keys() - found.keys()):
        raise CompileError(f"{path}: tensor {name!r} of a {kind} is missing")
    for name in sorted(found.keys() - wanted.keys()):
        raise CompileError(f"{path}: tensor {name!r} has no place in a {kind}")
    for name, shape in sorted(found.items()):
        if shape != wanted[name]:
            raise CompileError(
                f"{path}: tensor {name!r} has shape {shape}, the configuration says {wanted[name]}"
            )


def shapes_of(module: PreTrainedModel) -> Shapes:
    """What a module's tensors must be; one that is tied to another counts once."""
    tied = module.all_tied_weights_keys
    return {n: tuple(t.shape) for n, t in module.state_dict().items() if n not in tied}


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Without progress bars or network; what readers raise becomes one line."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        # One bar is not transformers' own, and stays on.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except CompileError:
        raise
    except Exception as error:  # whatever its parsers raise
        raise CompileError(f"{path}: {what} cannot be read: {first_line(error)}") from None
