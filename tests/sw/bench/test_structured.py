"""That the documents show what was measured, and that the picture is drawn from it."""

from __future__ import annotations

from pathlib import Path

from sw.bench import sparsity
from sw.bench.structured import COLUMNS, POINTS, RESULTS, markdown, read_points, table_rows
from sw.bench.structured_picture import draw_structured


def test_documents_show_what_was_measured() -> None:
    found = read_points(RESULTS)
    lines = markdown(found).splitlines()
    assert len(lines) == 2 + len(found) == 2 + len(POINTS)
    text = (Path(__file__).parents[3] / "docs" / "structured.md").read_text()
    assert [line for line in lines if line not in text] == []


def test_cells() -> None:
    point = {"cycles": 4235928, "mean": 0.96678, "minimum": 0.896, "neighbours": 0.775}
    cuts = {"a.attention.output.dense": 5, "a.output.dense": 1000, "b.attention.output.dense": 6}
    known = {POINTS[-1].name: {**point, "cuts": cuts}, POINTS[0].name: {**point, "cuts": {}}}
    first, last = table_rows(known)
    assert first == (POINTS[0].name, "4,235,928", "", "", "0.9668", "0.8960", "77.5%")
    assert last[2:4] == ("11 of 72", "1,000 of 9,216") and len(last) == len(COLUMNS)


def test_picture(tmp_path) -> None:
    path = tmp_path / "curve.png"
    draw_structured(path, read_points(RESULTS), sparsity.read_points(sparsity.RESULTS))
    assert path.read_bytes().startswith(b"\x89PNG")
