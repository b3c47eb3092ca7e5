"""Tables of energies: what is read is what was written, and what is wrong is said in one line."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import yaml

from hw.config import get_config
from sw.energy import TABLES, Counts, Quantity, TableError, estimate, read_table
from sw.energy.estimate import machine_table
from sw.energy.machine import actions, reference
from sw.energy.table import Point, Table
from sw.energy.technology import Technology
from sw.golden.activity import EXACT

CONFIG = get_config("tiny+sleep")
DID_ALL = Counts(CONFIG, 10, dict.fromkeys(EXACT, 1), 1, 1, 1)
PLAIN = {"ERT": {"version": 0.3, "tables": [
    {"name": "weft.array", "actions": [{"name": "x", "arguments": None, "energy": 2}]}
]}}  # fmt: skip


def complaint(tmp_path, data, text: bool = False) -> str:
    path = tmp_path / "t.yaml"
    path.write_text(data if text else yaml.safe_dump(data))
    with pytest.raises(TableError) as error:
        estimate(DID_ALL, read_table(str(path)))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 and str(path) in lines[0]
    return lines[0]


def changed(**fields) -> dict:
    """The plain table with other fields of its one action."""
    action = {"name": "x", "arguments": None, "energy": 2} | fields
    tables = [{"name": "weft.array", "actions": [action]}]
    return {"weft": {"unit": "pJ"}, "ERT": {"version": 0.3, "tables": tables}}


@pytest.mark.parametrize("name", TABLES)
def test_shipped_tables_state_intervals_and_sources(name):
    table = read_table(name)
    assert not table.unstated
    points = [point for found in table.actions.values() for point in found]
    assert all(point.source in table.sources for point in points)


def test_a_machine_s_table_gives_the_same_energies(tmp_path):
    path = tmp_path / "ert.yaml"
    table = machine_table(read_table("horowitz-45nm"), CONFIG)
    table.write(path)
    again = read_table(str(path))
    assert again.of_machine and again.unit == "pJ"
    assert reference(again, CONFIG) == reference(read_table("horowitz-45nm"), CONFIG)
    keys = {(action.component, action.name) for action in actions(CONFIG)}
    assert set(again.actions) == keys


def test_a_machine_s_table_is_of_no_other(tmp_path):
    path = tmp_path / "ert.yaml"
    machine_table(read_table("horowitz-45nm"), CONFIG).write(path)
    with pytest.raises(TableError, match=r"weft\.machine"):
        reference(read_table(str(path)), get_config("base+sleep"))


def test_what_accelergy_writes_is_read(tmp_path):
    """Without `weft`, in pJ, without intervals: and the table says that it has none."""
    path = tmp_path / "ERT.yaml"
    path.write_text(yaml.safe_dump(PLAIN))
    table = read_table(str(path))
    assert table.points("weft.array", "x")[0].energy == Quantity(2, 2, 2)
    assert table.unstated == ["weft.array x"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a: [", "not YAML"),
        ("just a text", "mapping"),
        ({"ERT": {"version": 0.3}}, "ERT.tables"),
        (changed() | {"weft": {}}, "weft.unit"),
        (changed() | {"weft": {"unit": "kWh"}}, "'kWh'"),
        (changed(energy=-1), "weft.array.x.energy is -1"),
        (changed(energy="2 pJ"), "weft.unit"),
        (changed(energy=None), "weft.array.x.energy is missing"),
        (changed(energy=float("nan")), "not negative"),
        (changed(low=3, high=4), "put in order"),
        (changed(low=1), "weft.array.x.high is missing"),
        (changed(arguments={"bits": 0}), "weft.array.x.arguments"),
        (changed(source="nobody"), "'nobody'"),
        (PLAIN, "weft.array"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, data, words):
    assert words in complaint(tmp_path, data, isinstance(data, str))


def test_every_missing_action_is_named(tmp_path):
    """Of a technology: whatever action is left out, its component and name are in the message."""
    table = read_table("horowitz-45nm")
    for key in table.actions:
        rest = {k: points for k, points in table.actions.items() if k != key}
        with pytest.raises(TableError, match=f"{key[1]!r} of component {key[0]!r}"):
            reference(replace(table, actions=rest), CONFIG)


def test_unknown_names_list_the_tables():
    with pytest.raises(TableError, match="horowitz-45nm"):
        read_table("nosuch")


def test_units_are_converted(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(changed() | {"weft": {"unit": "nJ"}}))
    assert read_table(str(path)).points("weft.array", "x")[0].energy.value == 2000


def test_between_points_energies_follow_a_power():
    points = tuple(
        Point(Quantity(b**2, b, b**3), {"bits": b}) for b in (8.0, 32.0)
    )  # value, low, high: powers 2, 1, 3
    technology = Technology(Table("t", "t", "pJ", {("multiplier", "multiply"): points}))
    rng = random.Random(1)
    for bits in (8, 32, *(rng.randrange(2, 64) for _ in range(20))):
        found = technology.multiply(bits, bits)
        assert (found.value, found.low, found.high) == pytest.approx((bits**2, bits, bits**3))


def test_memories_beyond_the_table_cost_what_its_ends_do():
    technology = Technology(read_table("horowitz-45nm"))
    assert technology.access("read", 64, 64).value == pytest.approx(10)
    assert technology.access("read", 1 << 30, 128).value == pytest.approx(200)
    assert 20 < technology.access("write", 65536, 64).value < 100
