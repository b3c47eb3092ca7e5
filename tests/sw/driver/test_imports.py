"""The files of the driver import one way, types and imports inside functions included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sw.driver

FOLDER = Path(sw.driver.__file__).parent


def imported(path: Path) -> set[str]:
    """Files of the folder that a file imports from, wherever it does."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {n.removeprefix("sw.driver.") for n in names if n.startswith("sw.driver")}


def test_no_circle():
    graph = {path.stem: imported(path) for path in FOLDER.glob("*.py")}
    package = graph.pop("__init__")
    assert {"device", "executable", "machine"} <= graph.keys() and "device" in package
    assert not any("sw.driver" in names for names in graph.values()), "imports its own package"
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("machine") < order.index("executable") < order.index("device")
