"""Tables of unit energies: YAML files in the form of Accelergy's energy reference tables (ERT).

    weft: {title: .., unit: pJ, sources: {NAME: text}}
    ERT:
      version: 0.3
      tables:
      - name: multiplier
        actions:
        - {name: multiply, arguments: {bits: 8}, energy: 0.2, low: 0.12, high: 0.8, source: NAME}

`ERT` is Accelergy's; what others have not got is `weft`, and `low`, `high`, `source` of an action.
A table is either of a technology, as this one, from which the energies of any machine are made, or
of one machine, with components `weft.*` and the actions of `sw.energy.machine`. In an ERT without
`weft` energies are in pJ, as Accelergy has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hw.config import AcceleratorConfig
from sim.files import write_atomically
from sw.compiler.errors import InputError, first_line
from sw.energy.quantity import Quantity

__all__ = ["MACHINE", "TABLES", "UNITS", "Point", "Table", "TableError", "machine_of", "read_table"]

MACHINE = "weft."
"""What the names of the components of a machine begin with."""

FOLDER = Path(__file__).parent / "tables"
TABLES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
"""Names of those that come with the project."""

PICOJOULES = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "J": 1e12}
UNITS = (*PICOJOULES, "toggles")
"""What energies may be given in; all but toggles become pJ."""
VERSION = 0.3
"""Of the ERT, what is written. All have the same form since."""

Action = tuple[str, str]
"""Component, action."""


class TableError(InputError):
    """A table of energies that cannot be used: which file, which key, what to do."""


@dataclass(frozen=True)
class Point:
    """An energy and what it is of: bits of an operation, bytes of a memory; and whose it is."""

    energy: Quantity
    arguments: Mapping[str, float]
    source: str = ""
    stated: bool = True


@dataclass(frozen=True)
class Table:
    """file: as messages name it. unit: pJ or toggles. sources: texts by name. actions: the points
    of each, in the order of the file. machine: whose it is, as `machine_of` has it; "": of any."""

    file: str
    title: str
    unit: str
    actions: Mapping[Action, tuple[Point, ...]]
    sources: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    machine: str = ""

    @property
    def of_machine(self) -> bool:
        return any(component.startswith(MACHINE) for component, _ in self.actions)

    @property
    def unstated(self) -> list[str]:
        """Actions without `low` and `high`: their energies look more certain than they are."""
        return [
            f"{component} {action}"
            for (component, action), points in self.actions.items()
            if not all(point.stated for point in points)
        ]

    def points(self, component: str, action: str) -> tuple[Point, ...]:
        """Raises `TableError` if it is not in the table."""
        found = self.actions.get((component, action))
        if not found:
            raise TableError(
                f"energy table {self.file}: ERT.tables has no action {action!r} of component "
                f"{component!r}: add it, or take one of {', '.join(TABLES)}"
            )
        return found

    def write(self, path: str | Path) -> None:
        """As a file that `read_table`, and Accelergy's tools, can read."""
        tables: dict[str, list[dict[str, Any]]] = {}
        for (component, action), points in self.actions.items():
            for point in points:
                entry = {"name": action, "arguments": dict(point.arguments) or None}
                entry |= {"energy": point.energy.value}
                if point.stated:
                    entry |= {"low": point.energy.low, "high": point.energy.high}
                if point.source:
                    entry["source"] = point.source
                tables.setdefault(component, []).append(entry)
        head = {"title": self.title, "unit": self.unit, "sources": dict(self.sources)}
        head |= {"remark": self.remark} if self.remark else {}
        head |= {"machine": self.machine} if self.machine else {}
        listed = [{"name": name, "actions": actions} for name, actions in tables.items()]
        data = {"weft": head, "ERT": {"version": VERSION, "tables": listed}}
        text = yaml.safe_dump(data, sort_keys=False, width=100, allow_unicode=True)
        write_atomically(Path(path), text.encode())


def machine_of(config: AcceleratorConfig) -> str:
    """How a table of a machine names it."""
    return f"{config.name}, fingerprint {config.fingerprint():08x}"


def read_table(name: str) -> Table:
    """One of `TABLES`, or a file. Raises `TableError`."""
    path = FOLDER / f"{name}.yaml" if name in TABLES else Path(name)
    reader = _Reader(name)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        known = "" if "." in name or "/" in name else f"; tables are {', '.join(TABLES)}, or a file"
        raise TableError(f"energy table {name}: {error.strerror}{known}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TableError(
            f"energy table {name} is not YAML ({first_line(error)}): docs/energy.md has the format"
        ) from None
    return reader.table(data)


class _Reader:
    def __init__(self, file: str):
        self._file = file

    def _fail(self, key: str, text: str) -> TableError:
        return TableError(f"energy table {self._file}: {key} {text}")

    def _get(self, where: Any, path: str, key: str, kind: type, what: str) -> Any:
        if not isinstance(where, dict):
            raise self._fail(path or "the file", "must be a mapping of keys to values")
        if not isinstance(where.get(key), kind):
            name = f"{path}.{key}" if path else key
            raise self._fail(name, f"is missing or not {what}: see docs/energy.md")
        return where[key]

    def table(self, data: Any) -> Table:
        ert = self._get(data, "", "ERT", dict, "a mapping with `tables`")
        head = data.get("weft", {"unit": "pJ"})
        unit = self._get(head, "weft", "unit", str, f"one of {', '.join(UNITS)}")
        if unit not in UNITS:
            raise self._fail("weft.unit", f"is {unit!r}: write one of {', '.join(UNITS)}")
        sources = head.get("sources") or {}
        if not isinstance(sources, dict):
            raise self._fail("weft.sources", "must be texts by name")
        actions: dict[Action, tuple[Point, ...]] = {}
        for i, entry in enumerate(self._get(ert, "ERT", "tables", list, "a list of components")):
            component = self._get(entry, f"ERT.tables[{i}]", "name", str, "a text")
            for action in self._get(entry, component, "actions", list, "a list of actions"):
                name = self._get(action, f"{component}.actions", "name", str, "a text")
                point = self._point(action, f"{component}.{name}", PICOJOULES.get(unit, 1.0))
                if point.source and point.source not in sources:
                    raise self._fail(
                        f"{component}.{name}.source", f"{point.source!r} is not in weft.sources"
                    )
                key = component, name
                actions[key] = (*actions.get(key, ()), point)
        return Table(
            self._file,
            str(head.get("title", self._file)),
            "pJ" if unit in PICOJOULES else unit,
            actions,
            {str(key): str(text) for key, text in sources.items()},
            str(head.get("remark", "")),
            str(head.get("machine", "")),
        )

    def _point(self, action: dict, path: str, scale: float) -> Point:
        energy = self._number(action, path, "energy")
        stated = {"low", "high"} <= action.keys()
        low, high = energy, energy
        if {"low", "high"} & action.keys():
            low, high = self._number(action, path, "low"), self._number(action, path, "high")
        if not low <= energy <= high:
            raise self._fail(path, f"has low {low}, energy {energy}, high {high}: put in order")
        arguments = action.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise self._fail(f"{path}.arguments", "must be numbers by name, or null")
        numbers = {str(key): self._number(arguments, f"{path}.arguments", key) for key in arguments}
        if not all(numbers.values()):
            raise self._fail(f"{path}.arguments", "must be more than 0")
        quantity = Quantity(energy, low, high) * scale
        return Point(quantity, numbers, str(action.get("source", "")), stated)

    def _number(self, where: dict, path: str, key: str) -> float:
        value = where.get(key)
        if isinstance(value, str):
            unit = next((u for u in UNITS if value.endswith(u)), None)
            hint = " units are given once, as weft.unit" if unit else ""
            raise self._fail(f"{path}.{key}", f"is {value!r}: write a number;{hint}".rstrip(";"))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fail(f"{path}.{key}", "is missing or not a number: write one")
        if not math.isfinite(value) or value < 0:
            raise self._fail(f"{path}.{key}", f"is {value}: write a number that is not negative")
        return float(value)
