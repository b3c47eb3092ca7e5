"""Random small modules, written as Python text and executed, so that a failure can be read.

A module is a chain of pieces from `module_pieces.txt`, which says what they look like.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import linecache
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

__all__ = ["RandomModule", "random_module"]

HEADER = """class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.count, self.plain = 0, torch.rand({D})
        self.register_buffer("cache", torch.rand({D}))
"""
WORDS = 12
"""Token numbers are smaller."""
INPUTS = ("x", "ids", "types", "positions", "mask", "hidden", "shown", "lengths")
HEADS = [(1, 8), (1, 13), (2, 4), (2, 7), (3, 4), (3, 5), (4, 6), (4, 3)]
"""(heads, features of each)"""
DTYPES = [torch.float32] * 12 + [torch.float64, torch.bfloat16, torch.float16]


def _read_pieces() -> dict[str, list[str]]:
    """Pieces by section."""
    text = Path(__file__).with_name("module_pieces.txt").read_text(encoding="utf-8")
    sections = {}
    for part in text.split("\n== ")[1:]:
        title, _, body = part.partition("\n")
        pieces = body.removeprefix("* ").rstrip().split("\n* ")
        sections[title.partition(":")[0]] = [piece.replace("\n  ", "\n") for piece in pieces]
    return sections


PIECES = _read_pieces()


@dataclass
class RandomModule:
    """A module in eval mode and how to call it.

    source: of its class. names: of its inputs, in order of `forward`.
    """

    source: str
    module: nn.Module
    batch: int
    tokens: int
    dim: int
    names: list[str]
    dtype: torch.dtype

    def __str__(self) -> str:
        shapes = f"batch {self.batch}, {self.tokens} tokens, {self.dim} features, {self.dtype}"
        return f"{self.source}# {shapes}"

    def inputs(self, seed: int) -> tuple[torch.Tensor, ...]:
        """Inputs of one call; every sequence shows its first token, every third call has holes."""
        generator = torch.Generator().manual_seed(seed)
        shape = self.batch, self.tokens

        def integers(low: int, high: int, size: tuple[int, ...] = shape) -> torch.Tensor:
            return torch.randint(low, high, size, generator=generator)

        lengths = integers(1, self.tokens + 1, (self.batch,))
        shown = torch.arange(self.tokens) < lengths[:, None]
        if seed % 3 == 2:
            shown &= torch.rand(shape, generator=generator) < 0.7
            shown[:, 0] = True
        ids = integers(1, WORDS)
        ids[:, 0] = 5
        values = {
            "x": torch.randn(*shape, self.dim, generator=generator).to(self.dtype),
            "ids": torch.where(shown, ids, 0),
            "types": integers(0, 2),
            "positions": integers(0, WORDS),
            "mask": shown.long(),
            "hidden": ~shown,
            "shown": shown.clone(),
            "lengths": lengths,
        }
        return tuple(values[name] for name in self.names)


@dataclass
class _Writer:
    """Fills in the words of pieces."""

    pick: random.Random
    batch: int
    tokens: int
    heads: int
    head: int
    layers: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)

    @property
    def dim(self) -> int:
        return self.heads * self.head

    def attribute(self, kind: str, text: str) -> str:
        name = f"{kind}{len(self.layers)}"
        self.layers.append(f"self.{name} = {text}")
        return f"self.{name}"

    def constant(self, shape: str) -> str:
        """A parameter, a buffer, or a plain tensor."""
        value, form = f"torch.rand({shape}) + 0.5", self.pick.randrange(4)
        if form == 0:
            name = f"buffer{len(self.layers)}"
            self.layers.append(f'self.register_buffer("{name}", {value})')
            return f"self.{name}"
        return self.attribute("constant", value if form == 1 else f"nn.Parameter({value})")

    def layer(self, name: str, a: int, b: int) -> str | None:
        pick, dim, heads = self.pick, self.dim, self.heads
        if name == "linear":
            return self.attribute(name, f"nn.Linear({a}, {b}, {pick.random() < 0.8})")
        if name == "norm":
            affine = pick.random() < 0.7
            return self.attribute(name, f"nn.LayerNorm({dim}, elementwise_affine={affine})")
        if name == "table":
            return self.attribute(name, f"nn.Embedding({WORDS}, {dim})")
        if name == "dropout":
            return self.attribute(name, f"nn.Dropout(0.3, inplace={pick.random() < 0.5})")
        if name == "mha":
            text = f"nn.MultiheadAttention({dim}, {heads}, batch_first=True)"
            return self.attribute(name, text)
        if name == "layer":
            options = (
                f"norm_first={pick.random() < 0.5}, activation='{pick.choice(['relu', 'gelu'])}'"
            )
            text = f"{dim}, {heads}, {dim + 5}, batch_first=True, {options}"
            return self.attribute(name, f"nn.TransformerEncoderLayer({text})")
        return None

    def word(self, match: re.Match) -> str:
        pick, dim, d, tokens = self.pick, self.dim, self.head, self.tokens
        name, *sizes = match.group(1).split()
        numbers = {"B": self.batch, "T": tokens, "H": self.heads, "D": dim, "d": d}
        if name in numbers:
            return str(numbers[name])
        a, b = (eval(size, {}, dict(numbers)) for size in sizes) if sizes else (dim, dim)
        found = self.layer(name, a, b)
        if found is not None:
            return found
        shapes = {
            "vector": f"{dim}", "rows": f"{tokens}, {dim}", "token": f"1, 1, {dim}",
            "matrix": f"{dim}, {dim}", "perbatch": f"{self.batch}, 1, {dim}",
            "perhead": f"{d}", "heads": f"{self.heads}, 1, {d}",
        }  # fmt: skip
        if name in shapes:
            return self.constant(shapes[name])
        choices: dict[str, Callable[[], str]] = {
            "number": lambda: pick.choice(["2", "0.5", "-1.5", "3.0"]),
            "wide": lambda: pick.choice(["6", "15", "20.0"]),
            "i": lambda: str(pick.randrange(tokens)),
            "f": lambda: str(pick.randrange(1, dim)),
            "old": lambda: pick.choice(self.old or ["h"]),
            "act": lambda: pick.choice(PIECES["acts"]),
            "visible": lambda: self.fill(pick.choice(PIECES["visible"])),
            "additive": lambda: self.fill("(1.0 - {visible}[:, None, None].float()) * -1e9"),
            "causal": lambda: f"torch.ones({tokens}, {tokens}, dtype=torch.bool).triu(1)",
        }
        return choices[name]()

    def fill(self, text: str) -> str:
        return re.sub(r"\{([^{}]+)\}", self.word, text)

    def add(self, section: str) -> None:
        self.lines += self.fill(self.pick.choice(PIECES[section])).splitlines()
        if section in ("plain", "tricky", "merge") and self.pick.random() < 0.6:
            self.old.append(f"h{len(self.old)}")
            self.lines.append(f"{self.old[-1]} = h")


def random_module(seed: int) -> RandomModule:
    """Module number `seed`, always the same; PyTorch itself runs it."""
    for attempt in itertools.count():
        item = _draw(random.Random(f"{seed} {attempt}"), f"random_module_{seed}.py")
        with contextlib.suppress(Exception), torch.no_grad():
            copy.deepcopy(item.module)(*item.inputs(1))
            return item
    raise AssertionError


def _draw(pick: random.Random, file: str) -> RandomModule:
    w = _Writer(pick, pick.randint(1, 3), pick.randint(1, 9), *pick.choice(HEADS))
    w.add("starts")
    for _ in range(pick.randint(1, 3)):
        kind = pick.random()
        if kind < 0.3:
            for section in ("split", "attend", "merge"):
                w.add(section)
        else:
            w.add("plain" if kind < 0.87 else "tricky")
    if pick.random() < 0.4:
        w.add("pools")
        for _ in range(pick.randint(0, 2)):
            w.add("heads")
        w.add("pooled_ends")
    else:
        w.add("ends")
    names = [n for n in INPUTS if any(re.search(rf"\b{n}\b(?!=)", line) for line in w.lines)]
    pick.shuffle(names)
    source = w.fill(HEADER) + "".join(f"        {line}\n" for line in w.layers)
    source += f"\n    def forward(self, {', '.join(names)}):\n"
    source += "".join(f"        {line}\n" for line in w.lines)
    casts = any(word in source for word in ("double", "half", "float16", "float64"))
    dtype = torch.float32 if casts else pick.choice(DTYPES)
    module = _build(source, file, pick.randrange(1 << 31)).to(dtype).eval()
    return RandomModule(source, module, w.batch, w.tokens, w.dim, names, dtype)


def _build(source: str, file: str, seed: int) -> nn.Module:
    """Execute the text as a file of its own, so that error messages find its lines."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space = {"torch": torch, "nn": nn, "F": functional}
    exec(compile(source, file, "exec"), space)
    torch.manual_seed(seed)
    module = space["Module"]()  # pyright: ignore
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return module
