"""The order of the compiler's rooms, and no circle of imports anywhere, from the source alone.

Every import counts: those inside functions and those for types only tie files together as well.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMPILER = ROOT / "sw" / "compiler"
TREES = ("hw", "sim", "boards", "sw")

BELOW = {
    "graph": {"errors"},
    "capture": {"errors", "graph"},
    "quantise": {"errors", "graph"},
    "stream": {"errors"},
    "program": {"errors", "graph", "stream"},
    "lower": {"errors", "graph", "stream", "program"},
    "prune": {"errors", "graph", "quantise"},
    "tune": {"errors", "graph", "capture", "quantise", "prune", "stream", "program", "lower"},
}
"""What each room may import, besides itself, `hw`, the cache and how files are written."""
FILES = {
    "errors": set(),
    "memories": {"errors", *BELOW},
    "compile": {"errors", "memories", *BELOW},
    "__init__": {"compile", "errors", "memories", *BELOW},
}
"""The same for the files that are in no room."""


@functools.cache
def modules() -> dict[str, Path]:
    """Files of the project by module name."""
    paths = [path.relative_to(ROOT) for tree in TREES for path in (ROOT / tree).rglob("*.py")]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(source: str) -> Iterator[str]:
    """Modules that a file imports, wherever in it: `from a import b` is a.b if that is a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: name the whole module, without dots"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules() else node.module or ""


@functools.cache
def graph() -> dict[str, set[str]]:
    """For each module of the project, those of the project that it imports."""
    return {
        name: {found for found in imports((ROOT / path).read_text()) if found in modules()}
        for name, path in modules().items()
    }


def room(module: str) -> str:
    """The room, or file in no room, that a module of the compiler belongs to."""
    path = (ROOT / modules()[module]).relative_to(COMPILER)
    return path.parts[0].removesuffix(".py")


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports of the compiler that do not go downwards."""
    wrong = []
    for module in sorted(m for m in edges if f"{m}.".startswith("sw.compiler.")):
        allowed = {room(module)} | (BELOW | FILES)[room(module)]
        for other in sorted(edges[module]):
            inside = f"{other}.".startswith("sw.compiler.")
            outside = other.startswith("hw.") or other in ("sim.cache", "sim.files", "sim.library")
            if not (room(other) in allowed if inside else outside):
                wrong.append(f"{module} imports {other}")
    return wrong


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules each of which imports the next, the last one the first again; none if that is so."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return []


def test_every_room_has_its_place() -> None:
    rooms = {path.name for path in COMPILER.iterdir() if (path / "__init__.py").exists()}
    assert rooms == BELOW.keys()
    assert {path.stem for path in COMPILER.glob("*.py")} == FILES.keys()


def test_nothing_is_imported_upwards() -> None:
    assert upward(graph()) == []


def test_no_circle_of_imports() -> None:
    assert " -> ".join(circle(graph())) == ""


def test_every_room_says_what_it_holds() -> None:
    """One sentence each, which docs/architecture.md has as well."""
    page = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    for name in BELOW:
        source = (COMPILER / name / "__init__.py").read_text()
        text = (ast.get_docstring(ast.parse(source)) or "").removesuffix(".")
        assert re.fullmatch(r".{20,}", text), f"{name}/__init__.py: one line"
        assert f"| `{name}/` | {text} |" in page, f"docs/architecture.md: `{name}/`: {text}"


@pytest.mark.parametrize(
    "source",
    [
        "import hw.isa",
        "from hw import isa",
        "from hw.isa import Opcode",
        "def f():\n    from hw.isa import Opcode",
        "if TYPE_CHECKING:\n    import hw.isa as commands",
    ],
)
def test_every_import_counts(source: str) -> None:
    assert list(imports(source)) == ["hw.isa"]


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("sw.compiler.graph.rows", "sw.compiler.quantise.names"),
        ("sw.compiler.stream.order", "sw.compiler.graph.operations"),
        ("sw.compiler.lower.tile_rows", "sw.compiler.compile"),
        ("sw.compiler.tune.tune", "sw.compiler"),
        ("sw.compiler.errors", "sw.compiler.stream"),
        ("sw.compiler.program.plan", "sw.driver.device"),
        ("sw.compiler.compile", "sw.cli.main"),
    ],
)
def test_upward_imports_are_found(module: str, other: str) -> None:
    assert upward({module: {other}}) == [f"{module} imports {other}"]


def test_circles_are_found() -> None:
    found = circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert " ".join(found) in ("a b c a", "b c a b", "c a b c")
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
