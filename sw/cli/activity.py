"""`--activity`: what the units did, as an option and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from hw.registers import ACTIVITY_TEXTS
from sw.bench.activity import asleep_of_idle

__all__ = ["activity_option", "activity_table"]

activity_option = click.option(
    "--activity",
    is_flag=True,
    help="Measure the machine with the option `sleep`, and show what each unit did and slept.",
)


def activity_table(result: Mapping[str, Any]) -> Table:
    """Of a measurement with `activity`: counters that are not 0, and their shares of cycles."""
    cycles, table = result["cycles"], Table(title="Activity")
    table.add_column("counter")
    table.add_column("value", justify="right")
    table.add_column("a cycle", justify="right")
    table.add_column("what")
    for name, count in result["activity"].items():
        if count:
            table.add_row(name, f"{count:,}", f"{count / cycles:.1%}", ACTIVITY_TEXTS[name])
    for name, share in asleep_of_idle(dict(result)).items():
        table.add_row(f"idle cycles asleep, {name}", "", f"{share:.1%}", "")
    exact = "yes" if result["activity_exact"] else "[red]NO[/]"
    table.add_row("as the commands say", exact, "", "all but what is asleep")
    return table
