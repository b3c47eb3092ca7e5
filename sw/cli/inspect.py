"""`weft inspect`: what a program plans to do with the machine."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from rich.table import Table

from hw.registers import ACTIVITY_TEXTS
from sw.cli.common import OUTPUT_FILE, write_json
from sw.cli.energy import energy_option, energy_tables
from sw.cli.module_tree import tree
from sw.cli.program_file import entry_option, read_program
from sw.cli.screen import console, show
from sw.compiler.errors import InputError
from sw.compiler.program.decoder_program import DecoderProgram, Entry
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.plan import MemoryUse, Plan, Stage, Traffic, make_plan
from sw.compiler.program.program import Program
from sw.energy import estimate, predicted, read_table
from sw.energy.estimate import record as energy_record
from sw.golden.activity import EXACT
from sw.golden.machine import GoldenMachine

__all__ = ["inspect", "plan_record"]

_LEVELS, _ASCII_LEVELS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_BESIDE_PICTURE = 45
"""Columns of a memory's name, its numbers and the gaps."""


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
    table.add_row("with a memory of", f"{config.memory_rate} bytes a cycle")
    table.add_row("predicted utilisation", f"{plan.utilization:.1%}")
    table.add_row("on-chip bytes in use", f"{plan.peak_bytes:,} of {config.onchip_bytes:,}")
    return table


def _tiles(stage: Stage) -> str:
    """The most frequent tile, and how many others there are."""
    others = f" +{len(stage.tiles) - 1}" if len(stage.tiles) > 1 else ""
    return "".join("x".join(map(str, tile)) + others for tile, _ in stage.tiles.most_common(1))


def _traffic(traffic: Traffic | None, uses: bool) -> str:
    if traffic is None:
        return "resident" if uses else ""
    times = "" if traffic.times < 1.005 else f" x{traffic.times:.3g}"
    kib = traffic.unique_bytes / 1024
    return (f"{kib:.1f} KiB" if kib < 1024 else f"{kib / 1024:,.2f} MiB") + times


def _sum(place: str, stages: Sequence[Stage]) -> Stage:
    """Several parts of the module as one."""

    def loads(found: Sequence[Traffic | None]) -> Traffic | None:
        known = [traffic for traffic in found if traffic is not None]
        total, unique = (sum(t.total_bytes for t in known), sum(t.unique_bytes for t in known))
        return Traffic(total, unique) if known else None

    return Stage(
        place,
        tiles=sum((s.tiles for s in stages), Counter()),
        weights=loads([s.weights for s in stages]),
        inputs=loads([s.inputs for s in stages]),
        cycles=sum(s.cycles for s in stages),
        busy=sum(s.busy for s in stages),
        vector=sum(s.vector for s in stages),
    )


def _stages(plan: Plan, every_part: bool) -> Table:
    table = Table(title="Parts of the module")
    table.add_column("part")
    for name in ("GEMMs", "cycles", "share", "busy", "vector"):
        table.add_column(name, justify="right")
    table.add_column("tile MxKxN")
    for name in ("weights, K, V", "activations"):
        table.add_column(name, justify="right")
    lines = tree([stage.place for stage in plan.stages], every_part=every_part)
    if sum(not line.is_layer for line in lines) < len(plan.stages):
        table.caption = "Layers like one above are not repeated: --all shows every part."
    for line in lines:
        stage = _sum(line.label, [plan.stages[i] for i in line.parts])
        gemms = stage.tiles.total()
        table.add_row(
            stage.place,
            f"{gemms:,}" if gemms else "",
            f"{stage.cycles:,}" if gemms else "",
            f"{stage.cycles / plan.cycles:.1%}" if gemms else "",
            f"{stage.busy / stage.cycles:.1%}" if gemms else "",
            f"{stage.vector:,}" if stage.vector else "",
            "" if line.is_layer else _tiles(stage),
            _traffic(stage.weights, gemms > 0),
            _traffic(stage.inputs, gemms > 0),
            style="bold" if line.is_layer else "",
        )
    share = plan.tail / max(plan.cycles, 1)
    whole = _sum("in all", plan.stages)
    table.add_row("behind the last GEMM", "", f"{plan.tail:,}", f"{share:.1%}", *("",) * 5)
    table.add_row(
        "in all",
        f"{whole.tiles.total():,}",
        f"{plan.cycles:,}",
        "100.0%",
        f"{whole.busy / max(plan.cycles, 1):.1%}",
        f"{whole.vector:,}",
        "",
        _traffic(whole.weights, bool(whole.tiles)),
        _traffic(whole.inputs, bool(whole.tiles)),
        style="bold",
    )
    return table


def _host(program: Program) -> list[Table]:
    """What the host computes, if it is to compute anything."""
    host = program.graph.host
    if host is None:
        return []
    table = Table(title="Computed by the host, as PyTorch does")
    for name in ("part", "when", "operation"):
        table.add_column(name)
    for when, calls in (("before", host.calls_before), ("after", host.calls_after)):
        for call in calls:
            table.add_row(call.place or "the module", when, call.target.removeprefix("aten."))
    for mask in host.masks:
        order = "key mask, causal order checked" if mask.causal else "key mask, checked"
        table.add_row(mask.name, "before", order)
    return [table]


def _over_time(memory: MemoryUse, columns: int) -> str:
    """Blocks as high as the share in use, at least one step if any: a picture that has place in
    `columns`."""
    levels = _ASCII_LEVELS if console.options.ascii_only else _LEVELS
    step = -(-len(memory.over_time) // columns)
    runs = (memory.over_time[i : i + step] for i in range(0, len(memory.over_time), step))
    return "".join(levels[-(-max(run) * (len(levels) - 1) // memory.capacity)] for run in runs)


def _memories(plan: Plan) -> Table:
    table = Table(title=f"On-chip words that will still be read, from cycle 0 to {plan.cycles:,}")
    table.add_column("memory")
    for name in ("most", "of", "share"):
        table.add_column(name, justify="right")
    table.add_column("over time")
    for memory in plan.memories:
        table.add_row(
            memory.name,
            f"{memory.peak:,}",
            f"{memory.capacity:,}",
            f"{memory.peak / memory.capacity:.0%}",
            _over_time(memory, max(console.width - _BESIDE_PICTURE, 8)),
        )
    return table


def _units(plan: Plan) -> Table:
    table = Table(title="Commands")
    table.add_column("command")
    table.add_column("unit")
    table.add_column("count", justify="right")
    for (name, unit), number in plan.units.most_common():
        table.add_row(name, unit, f"{number:,}")
    return table


def _counted(program: Program) -> dict[str, int]:
    return GoldenMachine(program.config, compiled=False).count(program.commands.tobytes())


def _activity(program: Program) -> Table:
    table = Table(title="Activity, as the counters of `sleep` will have it")
    table.add_column("counter")
    table.add_column("value", justify="right")
    table.add_column("what")
    counts = _counted(program)
    for name in EXACT:
        if counts[name]:
            table.add_row(name, f"{counts[name]:,}", ACTIVITY_TEXTS[name])
    return table


def plan_record(program: Program, plan: Plan) -> dict[str, Any]:
    """The plan as JSON data."""

    def stage(item: Stage) -> dict[str, Any]:
        tiles = [
            {"m": m, "k": k, "n": n, "gemms": count}
            for (m, k, n), count in item.tiles.most_common()
        ]
        return {**dataclasses.asdict(item), "tiles": tiles}

    host = program.graph.host

    return {
        "config": dataclasses.asdict(program.config),
        "commands": program.command_count,
        "useful_macs": program.useful_macs,
        "predicted_cycles": plan.cycles,
        "predicted_utilization": plan.utilization,
        "cycles_behind_last_gemm": plan.tail,
        "onchip_bytes_in_use": plan.peak_bytes,
        "stages": [stage(item) for item in plan.stages],
        "host": {
            "before": [call.target for call in host.calls_before] if host else [],
            "after": [call.target for call in host.calls_after] if host else [],
        },
        "memories": [dataclasses.asdict(item) for item in plan.memories],
        "units": [
            {"command": name, "unit": unit, "count": count}
            for (name, unit), count in plan.units.most_common()
        ],
    }


# --- language models --------------------------------------------------------------------------


def _decoder_summary(program: DecoderProgram) -> Table:
    config = program.config
    table = Table(show_header=False)
    table.add_row("configuration", f"{config.name} ({config.rows}x{config.columns})")
    table.add_row("fingerprint", f"{program.config.fingerprint():08x}")
    table.add_row("positions of a sequence", f"{program.context:,}")
    table.add_row("prefix, token numbers", ", ".join(map(str, program.prefix)) or "none")
    table.add_row("vocabulary", f"{program.vocabulary:,}")
    table.add_row("constants", f"{len(program.constants):,} bytes")
    table.add_row("workspace of a sequence", f"{program.workspace_bytes:,} bytes")
    table.add_row("of them keys and values", f"{program.cache_bytes:,}")
    table.add_row("input and output", f"{program.io_bytes:,} bytes")
    table.add_row("with a memory of", f"{config.memory_rate} bytes a cycle")
    return table


def _positions(program: DecoderProgram, entry: Entry) -> list[int]:
    """Where a pass is shown: behind the prefix, and where it ends in the middle and at the end."""
    last = program.context - entry.tokens
    return [min(len(program.prefix), last), max(program.context // 2 - entry.tokens, 0), last]


def _passes(program: DecoderProgram) -> Table:
    """Cycles of each pass, and what it uses of the memory and of the array at the last position."""
    config, places = program.config, ("beginning", "middle", "end")
    table = Table(title="Passes: predicted cycles by position")
    for name in ("tokens", "commands", *places, "memory", "array"):
        table.add_column(name, justify="right")
    for entry in program.entries.values():
        positions = _positions(program, entry)
        cycles = [entry.estimated_cycles(position) for position in positions]
        moved = program.needed_bytes(entry.tokens, positions[-1]) / config.memory_rate
        products = program.work.products_of(entry, positions[-1]) / (config.rows * config.columns)
        table.add_row(
            f"{entry.tokens}",
            f"{entry.command_count:,}",
            *(f"{count:,}" for count in cycles),
            f"{moved / cycles[-1]:.1%}",
            f"{products / cycles[-1]:.1%}",
        )
    return table


def decoder_record(program: DecoderProgram) -> dict[str, Any]:
    """What is known of a language model's program, as JSON data."""
    return {
        "config": dataclasses.asdict(program.config),
        "context": program.context,
        "prefix": list(program.prefix),
        "vocabulary": program.vocabulary,
        "constants_bytes": len(program.constants),
        "workspace_bytes": program.workspace_bytes,
        "cache_bytes": program.cache_bytes,
        "passes": [
            {
                "tokens": entry.tokens,
                "selected": entry.selected,
                "commands": entry.command_count,
                "positions": entry.positions.tolist(),
                "predicted_cycles": entry.estimates[0].tolist(),
                "predicted_cycles_reading": entry.estimates[1].tolist(),
            }
            for entry in program.entries.values()
        ],
    }


# --- several entries --------------------------------------------------------------------------


def _entry_record(program: JointProgram, name: str) -> dict[str, Any]:
    """What is known of an entry, as JSON data."""
    entry = program.entries[name]
    record: dict[str, Any] = {
        "kind": "module" if isinstance(entry, Program) else "decoder",
        "constants_bytes": len(entry.constants),
        "workspace_bytes": entry.workspace_bytes,
        "io_bytes": entry.io_bytes,
        "fills": program.sequences.get(name),
    }
    if isinstance(entry, Program):
        cycles = entry.estimated_cycles
        return record | {"commands": entry.command_count, "predicted_cycles": cycles}
    passes = entry.entries.values()
    first = entry.entries[1].estimated_cycles(len(entry.prefix))
    return record | {"commands": sum(p.command_count for p in passes), "predicted_cycles": first}


def _entries(program: JointProgram) -> tuple[Table, dict[str, Any]]:
    """A line for each entry, and the same as JSON data."""
    config = program.config
    table = Table(title=f"Entries, for {config.name} ({config.rows}x{config.columns})")
    table.add_column("entry")
    for name in ("commands", "constants", "workspace", "cycles"):
        table.add_column(name, justify="right")
    table.add_column("results")
    records = {name: _entry_record(program, name) for name in program.entries}
    for name, record in records.items():
        numbers = ("commands", "constants_bytes", "workspace_bytes", "predicted_cycles")
        fills = record["fills"]
        results = "tokens" if record["kind"] == "decoder" else "of the module"
        results = f"memories of {fills}" if fills else results
        table.add_row(name, *(f"{record[number]:,}" for number in numbers), results)
    table.caption = "Bytes. Cycles as predicted; of a decoder, of its first token."
    record = {"config": dataclasses.asdict(config), "entries": records}
    return table, record


@click.command()
@click.argument("file")
@click.option("--all", "every_part", is_flag=True, help="Every part of every layer.")
@click.option(
    "--activity", is_flag=True, help="What each unit will do: rows, groups, words of memories."
)
@energy_option
@entry_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the plan to this file.")
def inspect(
    file: str,
    every_part: bool,
    activity: bool,
    energy: str | None,
    entry: str | None,
    json_file: str | None,
) -> None:
    """Print the plan of a program file: tiles, loads, cycles, memories.

    The cycles of a part run from the GEMM before to the end of its own, waits included; `busy` is
    the share of them with rows in the array, `vector` the work of the vector unit beside it. Of
    the tiles of its GEMMs the most frequent one is shown, `+2` counts others. Loads are bytes of
    different data, `x2` if each is loaded twice; resident: it is on chip already. Layers that are
    alike are a line each below the first of them, whose parts are shown. What the host computes
    before and after the machine is listed operation by operation. Of a language model's program
    its passes are shown, with the cycles that the cost model expects at some positions. A file with
    several entries lists them; --entry shows one.
    """
    program = read_program(file, entry)
    if (activity or energy) and not isinstance(program, Program):
        name = "--activity" if activity else "--energy"
        raise InputError(f"{name} is of programs whose commands do not depend on a position")
    if isinstance(program, JointProgram):
        table, record = _entries(program)
        show(table)
        write_json(json_file, record)
        return
    if isinstance(program, DecoderProgram):
        show(_decoder_summary(program), _passes(program))
        write_json(json_file, decoder_record(program))
        return
    table = read_table(energy) if energy else None
    plan = make_plan(program)
    found = estimate(predicted(program), table) if table else None
    show(
        _summary(program, plan),
        _stages(plan, every_part),
        *_host(program),
        _memories(plan),
        _units(plan),
        *([_activity(program)] if activity else []),
        *(energy_tables(found) if found else []),
    )
    more: dict[str, Any] = {"activity": _counted(program)} if activity else {}
    more |= {"energy": energy_record(found)} if found else {}
    write_json(json_file, plan_record(program, plan) | more)
