"""`weft inspect`: what a program plans to do with the machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, console, write_json
from sw.compiler.program.plan import Plan, Stage, Traffic, make_plan
from sw.compiler.program.program import Program

__all__ = ["inspect", "plan_record"]

_LEVELS = " ▁▂▃▄▅▆▇█"


def _summary(program: Program, plan: Plan) -> Table:
    config = program.config
    table = Table(show_header=False)
    table.add_row("configuration", f"{config.name} ({config.rows}x{config.columns})")
    table.add_row("fingerprint", f"{program.fingerprint:08x}")
    table.add_row("commands", f"{program.command_count:,} ({len(program.commands):,} bytes)")
    table.add_row("constants", f"{len(program.constants):,} bytes")
    table.add_row("workspace", f"{program.workspace_bytes:,} bytes")
    table.add_row("input and output", f"{program.io_bytes:,} bytes")
    table.add_row("useful MACs", f"{program.useful_macs:,}")
    table.add_row("predicted cycles", f"{plan.cycles:,}")
    table.add_row("predicted utilisation", f"{plan.utilization:.1%}")
    table.add_row("on-chip bytes in use", f"{plan.peak_bytes:,} of {config.onchip_bytes:,}")
    return table


def _tiles(stage: Stage) -> str:
    """The two most frequent tiles."""
    shown = [f"{m}x{k}x{n}" for (m, k, n), _ in stage.tiles.most_common(2)]
    more = len(stage.tiles) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")


def _traffic(traffic: Traffic | None, uses: bool) -> str:
    if traffic is None:
        return "resident" if uses else ""
    times = "once" if traffic.times < 1.005 else f"{traffic.times:.3g}x"
    return f"{traffic.unique_bytes / 1024:,.1f} KiB {times}"


def _stages(plan: Plan) -> Table:
    table = Table(title="Parts of the module: tiles (M x K x N of a GEMM), loads, cycles")
    table.add_column("part", overflow="fold")
    table.add_column("tiles", overflow="fold")
    for name in ("GEMMs", "weights, K, V", "activations", "cycles", "share", "busy", "vector"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in plan.stages:
        gemms = stage.tiles.total()
        table.add_row(
            stage.place,
            _tiles(stage),
            f"{gemms:,}" if gemms else "",
            _traffic(stage.weights, gemms > 0),
            _traffic(stage.inputs, gemms > 0),
            f"{stage.cycles:,}" if gemms else "",
            f"{stage.cycles / plan.cycles:.1%}" if gemms else "",
            f"{stage.busy / stage.cycles:.1%}" if gemms else "",
            f"{stage.vector:,}" if stage.vector else "",
        )
    share = plan.tail / max(plan.cycles, 1)
    table.add_row("behind the last GEMM", "", "", "", "", f"{plan.tail:,}", f"{share:.1%}")
    table.add_row("in all", "", "", "", "", f"{plan.cycles:,}", "100.0%", style="bold")
    return table


def _level(words: int, capacity: int) -> str:
    """A block as high as the share in use, at least one step if any."""
    return _LEVELS[-(-words * (len(_LEVELS) - 1) // capacity)]


def _memories(plan: Plan) -> Table:
    table = Table(title="On-chip words that will still be read")
    table.add_column("memory", no_wrap=True)
    table.add_column("most", justify="right", no_wrap=True)
    table.add_column("of", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column(f"over time, cycle 0 to {plan.cycles:,}", no_wrap=True)
    for memory in plan.memories:
        table.add_row(
            memory.name,
            f"{memory.peak:,}",
            f"{memory.capacity:,}",
            f"{memory.peak / memory.capacity:.0%}",
            "".join(_level(words, memory.capacity) for words in memory.over_time),
        )
    return table


def _units(plan: Plan) -> Table:
    table = Table("command", "unit", "count")
    for (name, unit), number in plan.units.most_common():
        table.add_row(name, unit, f"{number:,}")
    return table


def plan_record(program: Program, plan: Plan) -> dict[str, Any]:
    """The plan as JSON data."""

    def stage(item: Stage) -> dict[str, Any]:
        tiles = [
            {"m": m, "k": k, "n": n, "gemms": count}
            for (m, k, n), count in item.tiles.most_common()
        ]
        return {**dataclasses.asdict(item), "tiles": tiles}

    return {
        "config": dataclasses.asdict(program.config),
        "commands": program.command_count,
        "useful_macs": program.useful_macs,
        "predicted_cycles": plan.cycles,
        "predicted_utilization": plan.utilization,
        "cycles_behind_last_gemm": plan.tail,
        "onchip_bytes_in_use": plan.peak_bytes,
        "stages": [stage(item) for item in plan.stages],
        "memories": [dataclasses.asdict(item) for item in plan.memories],
        "units": [
            {"command": name, "unit": unit, "count": count}
            for (name, unit), count in plan.units.most_common()
        ],
    }


@click.command()
@click.argument("file")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the plan to this file.")
def inspect(file: str, json_file: str | None) -> None:
    """Print the plan of a program file: tiles, memory over time, predicted cycles, commands.

    The cycles of a part run from the GEMM before to the end of its own, waits included; `busy`
    is the share of them with rows in the array, `vector` the work of the vector unit beside it.
    """
    program = Program.load(file)
    plan = make_plan(program)
    for table in (_summary(program, plan), _stages(plan), _memories(plan), _units(plan)):
        console.print(table)
    write_json(json_file, plan_record(program, plan))
