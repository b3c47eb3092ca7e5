"""Area may not grow unnoticed, and the table says what the file has."""

import dataclasses
import json

import pytest
from click.testing import CliRunner

from boards.family import Area
from sw.bench import area
from sw.cli.main import cli
from sw.compiler.errors import CompileError

BEFORE = {"array": vars(Area(100, 200, 16, 0)), "bus": vars(Area(50, 60))}


def test_units_have_not_grown():
    known = area.read_areas()[area.GUARD]
    found = area.guarded_areas()
    assert set(found) == set(area.GUARDED)
    assert not area.complaints(found, known), "\n".join(area.complaints(found, known))
    # Everything is there, not an empty netlist that would pass.
    assert found["array"]["multipliers"] == 16


def test_growth_is_named_with_what_to_do():
    assert not area.complaints(BEFORE, BEFORE)
    found = {"array": vars(Area(103, 200, 16, 0)), "bus": vars(Area(50, 20))}
    assert not area.complaints(found, BEFORE)
    found = {"array": vars(Area(104, 206, 17, 1)), "loads": vars(Area())}
    luts, multipliers, block_rams, unknown = area.complaints(found, BEFORE)
    assert luts.startswith("array of `tiny` takes 104 luts, 4.0% more than the 100 in area.json")
    assert "17 multipliers, 6.2% more" in multipliers
    assert "1 block_rams, instead of the 0" in block_rams
    assert unknown == "loads is not in area.json: write it anew with `make synth`"
    assert "`make synth`" in luts


def test_cases_are_three_arrays_with_each_option():
    assert len({case.name for case in area.CASES}) == len(area.CASES) == 12
    assert [case.options for case in area.CASES[:4]] == ["-", "2:4", "INT4", "2:4, INT4"]
    macs = {case.config.rows * case.config.columns for case in area.CASES}
    assert macs == {16, 64, 128}


def test_what_is_known_is_not_synthesised_again(monkeypatch):
    texts = iter(["module a", "module a", "module b"])
    monkeypatch.setattr(area, "to_verilog", lambda *_: next(texts))
    reports = []

    def synthesise(config, progress):
        reports.append(config.name)
        return area.Report(config.name, 16, {"array": Area(**BEFORE["array"])})

    monkeypatch.setattr(area, "synthesise", synthesise)
    case = area.CASES[0]
    first, known = area.measure(case, {})
    assert not known and first["total"]["luts"] == 100
    assert area.measure(case, {case.name: first}) == (first, True)
    assert not area.measure(case, {case.name: first})[1]
    assert len(reports) == 2


def test_table_between_its_marks(tmp_path):
    case = area.CASES[3]
    areas = {case.name: {"total": vars(Area(12345, 2, 16, 0)), "luts_per_mac": 771.6}}
    lines = area.table(areas)
    assert area.table({}) == []
    assert lines[0].count("|") == len(dataclasses.fields(Area)) + 4
    assert lines[2] == "| 4x4 (`tiny`) | 2:4, INT4 | 12,345 | 2 | 16 | 0 | 772 |"
    page = f"before\n{area.BEGIN}\nold\n{area.END}\nafter\n"
    once = area.with_table(page, lines)
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old" not in once
    assert lines[2] in once and area.with_table(once, lines) == once
    with pytest.raises(CompileError, match=r"fpga\.md has no lines"):
        area.with_table("nothing", lines)
    path = tmp_path / "area.json"
    area.write_areas({**areas, "no such case": 1}, path)
    assert area.read_areas(path) == json.loads(json.dumps(areas))
    with pytest.raises(CompileError, match=r"missing: write it with `make synth`"):
        area.read_areas(tmp_path / "none.json")


def test_page_has_the_table_of_the_file():
    page = area.PAGE.read_text()
    assert area.with_table(page, area.table(area.read_areas())) == page


def test_a_case_that_there_is_not():
    result = CliRunner().invoke(cli, ["bench", "area", "--only", "32x32"])
    assert isinstance(result.exception, CompileError)
    assert "--only '32x32' matches no case: 4x4 (`tiny`) -" in str(result.exception)


def test_an_interruption_leaves_the_page_like_the_file(monkeypatch, tmp_path):
    page, written = tmp_path / "page.md", []
    page.write_text(f"{area.BEGIN}\n{area.END}\n")
    found = {"total": vars(Area(12345, 2, 16, 0)), "luts_per_mac": 771.6}

    def measure(case, *_):
        if case is area.CASES[1]:
            raise CompileError("interrupted")
        return found, False

    monkeypatch.setattr(area, "PAGE", page)
    monkeypatch.setattr(area, "read_areas", lambda: {area.GUARD: {}})
    monkeypatch.setattr(area, "write_areas", lambda areas: written.append(dict(areas)))
    monkeypatch.setattr(area, "measure", measure)
    result = CliRunner().invoke(cli, ["bench", "area", "--only", "4x4"])
    assert "interrupted" in str(result.exception)
    assert written == [{area.GUARD: {}, area.CASES[0].name: found}]
    assert page.read_text() == area.with_table(page.read_text(), area.table(written[-1]))
    assert "12,345" in page.read_text()
