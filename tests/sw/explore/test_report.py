"""The page with the front: complete, and drawn by a browser without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from boards.family import Area
from hw.config import AcceleratorConfig, get_config
from sw.energy import Quantity, read_table
from sw.explore.front import Budget, Point
from sw.explore.report import report_json, write_config, write_page

pytest.importorskip("plotly", reason='plotly is missing: pip install -e ".[explore]"')
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def points(format: str = "int8") -> list[Point]:
    return [
        Point(
            AcceleratorConfig(name="<b>", rows=rows, lanes=2, bus_bytes=4),
            format,
            1e6 / rows,
            Area(1000 * rows, 900, rows, 20),
            rows / 64,
            lowered=round(1e6 / rows),
        )
        for rows in (4, 8, 16, 32)
    ]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "front.html"
    both = points() + points("2:4 int8")
    write_page(str(path), "Machines for <model>", ["Budget: none."], both, both, both[2])
    return path


def test_all_is_in_the_page(page):
    text = page.read_text()
    assert "Machines for &lt;model&gt;" in text and "<model>" not in text
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)=", text)
    rows = re.findall(r"<tr.*?</tr>", text)
    assert len(rows) == 9 and sum('class="chosen"' in row for row in rows) == 1
    assert "250,000" in text and "cost model" in text


def test_a_browser_draws_it(page, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium to draw the page with: install chromium")
    options = (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "host-resolver-rules=MAP * ~NOTFOUND",
        f"user-data-dir={tmp_path / 'profile'}",
        "virtual-time-budget=20000",
        "dump-dom",
    )
    command = [browser, *(f"--{option}" for option in options), f"file://{page}"]
    dom = tmp_path / "dom.html"  # no pipe: processes that the browser leaves would hold it open
    with dom.open("w") as out:
        subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, timeout=200, check=True)
    drawn = dom.read_text()
    assert drawn.count('class="scatterlayer') >= 1
    assert len(re.findall(r'<g class="trace scatter', drawn)) == 5
    assert all(f">{name}</text>" in drawn for name in ("chosen", "front, 2:4 int8 weights"))


def test_json_and_configuration_file(tmp_path):
    some = points()
    found = report_json("m", Budget(luts=9), "cycles", 10, some, some[:2], some[1])
    again = json.loads(json.dumps(found))
    assert [Point.of_json(p) for p in again["points"]] == some
    assert again["budget"]["luts"] == 9 and again["judged"] == 10
    path = tmp_path / "config.json"
    write_config(str(path), some[1].config)
    assert get_config(str(path)) == some[1].config


def test_energies_are_in_the_page_and_the_json(tmp_path):
    """With both ends; a machine whose energy is not known has none."""
    table, some = read_table("tpuv4i-7nm"), points()
    some[1] = replace(some[1], energy=Quantity(2.5e9, 1e9, 4e9))
    write_page(str(tmp_path / "front.html"), "m", [], some, some, some[1], table)
    text = (tmp_path / "front.html").read_text()
    assert "<th>energy, uJ</th>" in text and "<td>2,500.00 (1,000.00 to 4,000.00)</td>" in text
    assert text.count("<td>-</td>") == 3
    found = json.loads(
        json.dumps(report_json("m", Budget(), "energy", 1, some, some, some[1], table))
    )
    assert found["energy"] == {"table": table.title, "unit": "pJ"}
    assert found["best"]["energy"] == {"value": 2.5e9, "low": 1e9, "high": 4e9}
    assert [Point.of_json(p) for p in found["points"]] == some
