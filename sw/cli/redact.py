"""`weft redact`: personal data in texts, found on the accelerator and masked."""

from __future__ import annotations

from collections import Counter

import click

from hw.config import get_config
from sw.cli.common import (
    OUTPUT_FILE,
    config_option,
    device_option,
    device_options,
    given_texts,
    memory_options,
    steps,
    write_json,
)

__all__ = ["redact"]


@click.command()
@click.argument("texts", nargs=-1)
@click.option("--file", help="File with one text a line; empty lines stay.")
@device_option
@config_option
@memory_options
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write what was found to this file.")
def redact(
    texts: tuple[str, ...],
    file: str | None,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """Print TEXTS with their personal data masked: "[GIVEN_NAME] lives in [CITY]".

    The model misses some, so read what it gives before you pass it on. Rampart is by the National
    Design Studio, CC BY 4.0.
    """
    from sw.models import rampart
    from sw.models.tagger import Tagger

    lines = given_texts(texts, file, as_it_is=True)
    rampart.model_folder()
    with steps(transient=True) as step:
        options = device_options(device, memory_latency, memory_width, step)
        tagger = Tagger(config, step=step)
        with tagger.open(device, **options) as opened:
            results = tagger.tag([line for line in lines if line.strip()], opened)
    tagged = iter(results)
    for line in lines:
        click.echo(next(tagged).masked if line.strip() else line)
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.counters)
    if total["cycles"]:
        tokens = sum(len(result.tags) for result in results)
        click.echo(
            f"{tokens} tokens in {total['cycles']:,} cycles on {get_config(config).name}", err=True
        )
    write_json(
        json_file,
        [
            {
                "text": result.text,
                "masked": result.masked,
                "found": [{"kind": s.label, "start": s.start, "end": s.end} for s in result.spans],
                "cycles": result.counters["cycles"] or None,
            }
            for result in results
        ],
    )
