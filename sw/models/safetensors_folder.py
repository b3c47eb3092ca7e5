"""Language models as `transformers` saves them: `config.json`, `.safetensors`, a tokenizer."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from sim.files import content_digest
from sw.compiler.errors import CompileError, first_line
from sw.models.checkpoint import Checkpoint, Shapes, compare, reading, shapes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SafetensorsCheckpoint"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
OTHERS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
MORE = ("added_tokens.json", "merges.txt", "chat_template.jinja")
TYPES = ("F32", "F16", "BF16")
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""Old files hold what the module computes itself."""
HEAD = "lm_head.weight"


class SafetensorsCheckpoint(Checkpoint):
    """A folder, or one of its files. Raises `CompileError` for files that are missing or damaged.

    path: a folder, whose weights are `model.safetensors`, what `model.safetensors.index.json`
    lists, or its only `.safetensors` file; or such a file, beside its `config.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path if path.is_dir() else path.parent
        self._settings = _read_json(self._folder / "config.json", "the model's configuration")
        _check_settings(path, self._settings)
        if not any((self._folder / name).is_file() for name in TOKENIZERS):
            raise CompileError(
                f"{self._folder} has no tokenizer ({', '.join(TOKENIZERS)}): put the model's there"
            )
        self._tensors = _in_folder(path) if path.is_dir() else _in_file(path)
        self.positions = getattr(self.config, "max_position_embeddings", 0)
        if not isinstance(self.positions, int) or self.positions < 1:
            raise CompileError(f"{path}: config.json says no max_position_embeddings")

    @functools.cached_property
    def digest(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        found = hashlib.sha256()
        named = (self._folder / n for n in ("config.json", *TOKENIZERS, *OTHERS, *MORE))
        weights = sorted({file for file, _ in self._tensors.values()})
        for path in (*filter(Path.is_file, named), *weights):
            found.update(f"{path.name} {content_digest(path)}\n".encode())
        return found.hexdigest()

    @functools.cached_property
    def config(self) -> Any:
        with reading(self.path, "config.json"):
            from transformers import AutoConfig

            return AutoConfig.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        with reading(self.path, "the tokenizer"):
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False
            )

    @property
    def tokens(self) -> int:
        return len(self.tokenizer)

    @functools.cached_property
    def ends(self) -> frozenset[int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        path = self._folder / "generation_config.json"
        said = _read_json(path, "").get("eos_token_id") if path.is_file() else None
        every = (self.tokenizer.eos_token_id, self._settings.get("eos_token_id"), said)
        listed = (end if isinstance(end, list) else [end] for end in every)
        return frozenset(end for ends in listed for end in ends if isinstance(end, int))

    def _check_tensors(self, module: PreTrainedModel) -> None:
        found: Shapes = {
            name: shape for name, (_, shape) in self._tensors.items() if not COMPUTED.search(name)
        }
        wanted, source = shapes_of(module), module.all_tied_weights_keys.get(HEAD)
        if HEAD in found and source is not None:
            wanted[HEAD] = wanted[source]  # saved twice
        compare(self.path, found, wanted, type(module).__name__)
        if HEAD in found and source is not None:
            tensors = self._read(HEAD, source)
            if not torch.equal(tensors[HEAD], tensors[source]):
                raise CompileError(
                    f"{self.path}: {HEAD} differs from {source}, config.json says they are the same"
                )

    def _load(self, kind: type[PreTrainedModel]) -> tuple[PreTrainedModel, dict[str, Any]]:
        return kind.from_pretrained(  # pyright: ignore[reportReturnType]
            None,
            config=self.config,
            state_dict=self._read(*(name for name in self._tensors if not COMPUTED.search(name))),
            dtype=torch.float32,
            output_loading_info=True,
        )

    def _read(self, *names: str) -> dict[str, torch.Tensor]:
        tensors = {}
        for file in {self._tensors[name][0] for name in names}:
            with safe_open(file, "pt") as opened:
                for name in names:
                    if self._tensors[name][0] == file:
                        tensors[name] = opened.get_tensor(name).float()
        return tensors


def _read_json(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise CompileError(f"{path} is missing: {what}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompileError(f"{path} is no JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise CompileError(f"{path} is no JSON object")
    return found


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    if settings.get("quantization_config"):
        raise CompileError(
            f"{path}: config.json says that its weights are quantised (quantization_config): take "
            "the model as it was before, or a GGUF file"
        )
    for name in settings.get("architectures") or ():
        if not str(name).endswith(("ForCausalLM", "LMHeadModel")):
            raise CompileError(f"{path} holds a {name}, which is no causal language model")


# --- weights ------------------------------------------------------------------------------------


def _in_file(path: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of each tensor of one file."""
    found = {}
    try:
        with safe_open(path, "pt") as opened:
            for name in opened.keys():
                tensor = opened.get_slice(name)
                if tensor.get_dtype() not in TYPES:
                    raise CompileError(
                        f"{path}: tensor {name!r} has type {tensor.get_dtype()}; those that are "
                        f"read: {', '.join(TYPES)}"
                    )
                found[name] = path, tuple(tensor.get_shape())
    except SafetensorError as error:
        raise CompileError(f"{path} is damaged or cut short: {first_line(error)}") from None
    return found


def _in_folder(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """The same of the folder's weights."""
    if (folder / WEIGHTS).is_file():
        return _in_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _in_shards(folder)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise CompileError(
            f"{folder} has {len(files) or 'no'} .safetensors files and neither {WEIGHTS} nor "
            f"{INDEX}"
        )
    return _in_file(files[0])


def _in_shards(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """The same of the files that an index lists: each has what it says and nothing else."""
    index = _read_json(folder / INDEX, "the index").get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CompileError(f"{folder / INDEX} has no weight_map")
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in sorted(set(map(str, index.values()))):
        if Path(file).name != file or not (folder / file).is_file():
            raise CompileError(f"{folder / INDEX} lists {file}, which is not there")
        tensors = _in_file(folder / file)
        listed = {name for name, place in index.items() if place == file}
        for name in sorted(listed ^ tensors.keys()):
            where = "has not" if name in listed else "has besides"
            raise CompileError(f"{folder / INDEX}: {file} {where} the tensor {name!r}")
        found |= tensors
    return found
