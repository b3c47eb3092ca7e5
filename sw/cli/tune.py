"""`weft tune`: trade accuracy for cycles and bytes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch
from rich.table import Table

from hw.config import get_config
from hw.sparse.formats import DENSE, WeightFormat, WeightFormatError
from sim.files import write_atomically
from sw.cli.common import (
    OUTPUT_FILE,
    PICTURE_FILE,
    POSITIVE_NUMBER,
    config_option,
    steps,
    write_json,
)
from sw.cli.model import MINILM, MODEL_HELP, load_model
from sw.cli.module_tree import tree
from sw.cli.screen import console, show
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.prune.cut import PruneOptions
from sw.compiler.tune.assign import Plan, within
from sw.compiler.tune.module import verified_copy
from sw.compiler.tune.structured import CutErrors, interpolated
from sw.compiler.tune.tune import Measured, Subject, Tuner

__all__ = ["tune"]

Errors = dict[str, dict[WeightFormat, float]]


def _subject(model: str, tokens: int, calibration: str | None) -> Subject:
    if model == MINILM:
        from sw.models.tuning import subject

        return subject(tokens)
    module, example, batches = load_model(model, calibration)
    if not batches:
        raise CompileError(f"tuning {model} needs calibration batches: they judge the plans")
    name = "".join(c if c.isalnum() else "-" for c in Path(model).name)
    return Subject(name, import_module(module, example), batches)


def _counts(tuner: Tuner, plan: Plan) -> str:
    """`12 int8, 24 2:4 int8; 63 of 72 heads`."""
    counts = Counter(f.name for f in plan.formats.values())
    text = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    for kind in ("heads", "channels"):
        blocks = [block for block in tuner.costs.blocks if block.kind == kind]
        if blocks:
            left = sum(plan.cuts.get(block.name, block.groups) for block in blocks)
            text += f"; {left:,} of {sum(block.groups for block in blocks):,} {kind}"
    return text


def _front_table(tuner: Tuner, plans: Sequence[Measured], chosen: Measured) -> Table:
    table = Table(title="Plans measured, in integers, on batches held out")
    table.add_column("linears", overflow="fold")
    for name in ("cosine", "least", "predicted", "cycles", "weight bytes", ""):
        table.add_column(name, justify="right")
    for m in sorted(plans, key=lambda m: -m.cycles - 1e-6 * m.plan.cost.bytes):
        table.add_row(
            _counts(tuner, m.plan),
            f"{m.mean:.5f}",
            f"{m.least:.5f}",
            f"{plans[0].mean + plans[0].plan.error - m.plan.error:.5f}",
            f"{m.cycles:,}",
            f"{m.plan.cost.bytes:,.0f}",
            "[bold green]chosen[/]" if m is chosen else "",
        )
    return table


def _plan_table(tuner: Tuner, plan: Plan, errors: Errors) -> Table:
    table = Table(title="The plan, linear by linear")
    table.add_column("linear")
    table.add_column("format")
    for name in ("error", "cycles", "weight bytes"):
        table.add_column(name, justify="right")
    names = list(tuner.places)
    for line in tree(names, every_part=True):
        places = [names[i] for i in line.parts]
        cost = tuner.cost(plan.formats, places, plan.cuts)
        format, error = "", ""
        if not line.is_layer:
            chosen = plan.formats.get(places[0], DENSE)
            format = chosen.name if chosen == DENSE else f"[bold]{chosen.name}[/]"
            error = f"{errors[places[0]][chosen]:.5f}"
        table.add_row(line.label, format, error, f"{cost.cycles:,.0f}", f"{cost.bytes:,.0f}")
    return table


def _cut_table(tuner: Tuner, plan: Plan, errors: CutErrors) -> Table:
    table = Table(title="What is left of each block")
    table.add_column("read by")
    for name in ("left", "of", "", "error"):
        table.add_column(name, justify="left" if not name else "right")
    for block in tuner.costs.blocks:
        left = plan.cuts.get(block.name, block.groups)
        error = interpolated(errors[block.name], left)
        shown = f"{left:,}" if left == block.groups else f"[bold]{left:,}[/]"
        table.add_row(block.name, shown, f"{block.groups:,}", block.kind, f"{error:.5f}")
    return table


def _json(measured: Measured) -> dict[str, object]:
    plan = measured.plan
    return {
        "cosine": measured.mean,
        "least": measured.least,
        "predicted_error": plan.error,
        "cycles": measured.cycles,
        "weight_bytes": plan.cost.bytes,
        "formats": {place: format.name for place, format in plan.formats.items()},
        "cuts": dict(plan.cuts),
    }


def _check_module_file(model: str, path: str | None, structured: bool) -> None:
    """Raises `CompileError` where a smaller module cannot be written to this file."""
    if path is None:
        return
    if not structured:
        raise CompileError("--module writes a module of fewer heads or channels: add --structured")
    if model.endswith(".pt2"):
        raise CompileError(
            f"{model} is exported, its shapes are fixed: give FILE.py:FUNCTION for a smaller module"
        )
    suffix = ".safetensors" if model == MINILM else ".pt2"
    if not path.endswith(suffix):
        raise CompileError(f"the smaller module of {model} is a {suffix} file, not {path}")


def _save_module(model: str, tuner: Tuner, plan: Plan, path: str) -> None:
    """The module of the plan, which `weft recover --student` and `weft compile` take."""
    if model == MINILM:
        from safetensors.torch import save

        from sw.models import minilm

        example = {"input_ids": torch.zeros(1, minilm.MAX_TOKENS, dtype=torch.int64)}
        small = verified_copy(
            minilm.load_module(), tuner, plan.cuts, example, outputs=("last_hidden_state",)
        )
        state = {name: value.contiguous() for name, value in small.state_dict().items()}
        write_atomically(path, save(state))
        return
    module, example, _ = load_model(model, None)
    small = verified_copy(module, tuner, plan.cuts, example)
    keywords = isinstance(example, Mapping)
    inputs = example if isinstance(example, tuple | list | Mapping) else (example,)
    program = torch.export.export(
        small, () if keywords else tuple(inputs), dict(inputs) if keywords else None
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    write_atomically(path, file.getvalue())


@click.command(help=f"Trade MODEL's accuracy for cycles and bytes of weights.\n\n{MODEL_HELP}")
@click.argument("model")
@click.option("--accuracy", type=float, help="Least mean cosine to float: fewest cycles above it.")
@click.option(
    "--cycles",
    type=POSITIVE_NUMBER,
    help="Most cycles: the best accuracy within them. Up to 1: a share of dense INT8's.",
)
@click.option("--bytes", "most_bytes", type=int, help="Most bytes of weights: likewise.")
@click.option(
    "--format",
    "names",
    multiple=True,
    help="Formats a linear may have beside int8: '2:4 int8', int4, int4/32, '2:4 int4/32' .., "
    "'int8 x int16' for 16-bit inputs.",
)
@click.option(
    "--structured",
    is_flag=True,
    help="Cut heads and hidden channels too; with --format int8 nothing else.",
)
@click.option("--measure", "most", default=4, show_default=True, help="Plans to measure, at most.")
@click.option("--tokens", default=128, show_default=True, help="Sequence length (MiniLM).")
@click.option("--calibration", help="Calibration batches (.npy), for a .pt2 file.")
@click.option("-o", "--output", type=OUTPUT_FILE, help="Program file to write.")
@click.option(
    "--module",
    "module_file",
    type=OUTPUT_FILE,
    help="With --structured: the smaller module in float, .safetensors for MiniLM, else .pt2.",
)
@click.option("--picture", type=PICTURE_FILE, help="Picture of the front to write (.png).")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write front and plan to this file.")
@config_option
def tune(
    model: str,
    accuracy: float | None,
    cycles: float | None,
    most_bytes: int | None,
    names: tuple[str, ...],
    structured: bool,
    most: int,
    tokens: int,
    calibration: str | None,
    output: str | None,
    module_file: str | None,
    picture: str | None,
    json_file: str | None,
    config: str,
) -> None:
    if sum(aim is not None for aim in (accuracy, cycles, most_bytes)) != 1:
        raise click.UsageError("give one of --accuracy, --cycles and --bytes")
    if accuracy is not None and not 0 < accuracy < 1:
        raise click.UsageError(f"--accuracy {accuracy}: a cosine between 0 and 1")
    if most < 2:
        raise click.UsageError("--measure: at least 2 plans, the dense one and another")
    _check_module_file(model, module_file, structured)
    chosen_config = get_config(config)
    try:
        formats = [WeightFormat.parse(name) for name in names]
    except WeightFormatError as error:
        raise CompileError(str(error)) from None
    with steps() as step:
        step("Reading the model")
        pruning = PruneOptions() if structured else None
        subject = _subject(model, tokens, calibration)
        tuner = Tuner(subject, chosen_config, formats, pruning=pruning)
        update = step("Sensitivity of each linear")
        errors = tuner.errors(lambda _text, part: update(part, 1))
        cuts = None
        if structured:
            update = step("Sensitivity of each block")
            cuts = tuner.cut_errors(lambda part: update(part, 1))
        update = step("Dense INT8")
        rest = tuner.rest(lambda _text, part: update(part, 1))
        plans = tuner.front(errors, cuts, by_bytes=most_bytes is not None, rest=rest)
        if cycles is not None and cycles <= 1:
            cycles *= tuner.program({}).estimated_cycles

        def measure(plan: Plan) -> Measured:
            update = step(f"Measuring {_counts(tuner, plan)}")
            return tuner.measure(plan, lambda _text, part: update(part, 1))

        if accuracy is not None:
            chosen, measured = tuner.search(plans, accuracy, measure, most)
            if chosen is None:
                first = _counts(tuner, plans[0])
                raise CompileError(
                    f"no plan reaches {accuracy}: the most accurate, {first}, has a mean cosine of "
                    f"{measured[0].mean:.5f}"
                )
        else:
            if cycles is not None:
                chosen = tuner.within(plans, measure, cycles)
            else:
                chosen = measure(plans[within(plans, bytes=most_bytes)])
            number = plans.index(chosen.plan)
            others = {round(number * i / (most - 1)) for i in range(most)} - {number}
            measured = [*(measure(plans[n]) for n in sorted(others)), chosen]
        if output:
            step("Lowering")
            tuner.program(chosen.plan.formats, chosen.plan.cuts).save(output)
        if module_file:
            step("Writing the smaller module")
            _save_module(model, tuner, chosen.plan, module_file)
    tables = [_plan_table(tuner, chosen.plan, errors), _front_table(tuner, measured, chosen)]
    if cuts is not None:
        tables.insert(1, _cut_table(tuner, chosen.plan, cuts))
    show(*tables)
    console.print("cycles: of the whole program, as the compiler predicts them", style="dim")
    if picture:
        from sw.bench.tuning_picture import draw_front

        draw_front(Path(picture), plans, measured, chosen)
    front = [{"error": p.error, "cycles": p.cost.cycles, "weight_bytes": p.cost.bytes}
             for p in plans]  # fmt: skip
    found = [_json(m) for m in measured]
    write_json(json_file, {"plan": _json(chosen), "measured": found, "front": front})
