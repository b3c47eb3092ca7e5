"""`weft bench decode`, `prefill` and `smollm2`: passes of language models on the RTL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from hw.config import get_config
from hw.isa import SELECTED
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.measure import STALLS, Step
from sw.bench.measure_decoder import measure_pass, measure_sequence
from sw.cli.activity import activity_option, activity_table
from sw.cli.common import (
    OUTPUT_FILE,
    bits_option,
    check_evict,
    config_option,
    inputs_option,
    memory_options,
    prune_option,
    steps,
    window_options,
    write_json,
)
from sw.cli.long_texts import KINDS, long_text
from sw.cli.screen import show
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.pruning import with_pruning
from sw.compiler.graph.window import RECENT, with_window
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.quantise.decoder.options import decoder_weights

__all__ = ["decode", "measure_decoder", "prefill", "smollm2"]


def _shape_options(command: Callable) -> Callable:
    sizes = {
        "hidden": (576, "Width of the residual stream."),
        "heads": (9, "Query heads."),
        "kv-heads": (3, "Key/value heads."),
        "ffn": (1536, "Width of the feed-forward layers."),
        "layers": (2, "Layers."),
        "vocab": (4096, "Tokens of the vocabulary."),
    }
    command = inputs_option(bits_option(command))
    command = click.option("--head-norms", is_flag=True, help="Norms of each head of q and k.")(
        command
    )
    command = click.option(
        "--dim", type=click.IntRange(min=2), help="Features of a head.  [default: hidden / heads]"
    )(command)
    for name, (default, text) in reversed(sizes.items()):
        number = click.IntRange(min=1)
        command = click.option(
            f"--{name}", default=default, type=number, show_default=True, help=text
        )(command)
    return command


def _measuring(command: Callable) -> Callable:
    for option in (
        click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the measurement there."),
        click.option(
            "--trace", type=OUTPUT_FILE, help="Write a timeline of every command (for Perfetto)."
        ),
        activity_option,
        memory_options,
        config_option,
    ):
        command = option(command)
    return command


def measure_decoder(
    title: str,
    make: Callable[[Step], DecoderProgram],
    tokens: int,
    context: int,
    json_file: str | None,
    **options: Any,
) -> None:
    """Make a program, measure the pass that ends at `context`, show and write what was found."""
    with steps() as step:
        step("Compiling")
        program = make(step)
        if context > program.context or tokens > context - len(program.prefix):
            raise CompileError(
                f"a pass of {tokens} tokens up to position {context} does not fit a context of "
                f"{program.context} with a prefix of {len(program.prefix)}"
            )
        counts = program.entries[tokens].attention is not None
        if not program.state.fits(context - tokens, tokens, counts):
            raise CompileError(
                f"a pass of {tokens} tokens up to position {context} does not end inside the "
                f"window of {program.state.window} keys, or cannot sum up the attention to them"
            )
        result = measure_pass(program, tokens, context - tokens, step=step, **options)
    cycles, table = result["cycles"], Table(title=f"{title} on {result['config']}")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    estimate = result["estimated_cycles"]
    rows = [
        ("cycles", f"{cycles:,}", ""),
        ("predicted", f"{estimate:,}", f"{estimate / cycles - 1:+.2%}"),
        ("bytes to read", f"{result['needed_bytes']:,}", f"{result['bandwidth_share']:.2%}"),
        ("bytes read", f"{result['dram_read_bytes']:,}", ""),
        ("products", f"{result['array_products']:,}", f"{result['array_share']:.2%}"),
        ("array busy", f"{result['matrix_busy']:,}", f"{result['matrix_busy'] / cycles:.2%}"),
        *((STALLS[n], f"{c:,}", f"{c / cycles:.2%}") for n, c in result["stalls"].items()),
        ("commands", f"{result['commands']:,}", f"{result['command_share']:.2%}"),
        ("on-chip bytes", f"{result['onchip_bytes']:,}", ""),
        ("equal to golden, every byte", "yes" if result["bit_exact"] else "[red]NO[/]", ""),
        ("simulation", f"{result['simulated_khz']:.0f} kHz", f"{result['wall_seconds']:.1f} s"),
    ]
    for row in rows:
        table.add_row(*row)
    show(table, *([activity_table(result)] if "activity" in result else []))
    write_json(json_file, {"workload": title, **result})
    if not (result["bit_exact"] and result.get("activity_exact", True)):
        raise SystemExit(2)


def _named(sizes: dict[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in sizes.items() if value)


def _kept(window: int, evict: str) -> str:
    """For a title."""
    return f", window {window}, {evict} first" if window else ""


def _random(
    config: str,
    tokens: int,
    context: int,
    window: int = 0,
    evict: str = "oldest",
    octaves: int = 0,
    **sizes: Any,
) -> DecoderProgram:
    check_evict(window, evict)
    machine = get_config(config)
    dim, rest = sizes["dim"], sizes["hidden"] % sizes["heads"]
    if (dim is None and rest) or sizes["heads"] % sizes["kv_heads"]:
        raise CompileError("--heads must divide --hidden, --kv-heads must divide --heads")
    shape = DecoderShape(
        hidden=sizes["hidden"],
        heads=sizes["heads"],
        kv_heads=sizes["kv_heads"],
        ffn=sizes["ffn"],
        layers=sizes["layers"],
        vocabulary=sizes["vocab"],
        context=context,
        dim=dim or 0,
        head_norms=sizes["head_norms"],
        weights=decoder_weights(int(sizes["bits"]), machine),
        norm_bits=int(sizes["inputs"]),
    )
    graph = decoder(shape)
    if window:
        from sw.models.generator import SINK

        graph = with_window(graph, window, SINK, RECENT if evict == "least" else 0)
    if octaves:
        graph = with_pruning(graph, octaves, machine.rows)
    return lower_decoder(graph, machine, (tokens,))


@click.command()
@_shape_options
@click.option("--context", default=2048, type=click.IntRange(min=2), show_default=True)
@click.option(
    "--rows", default=1, type=click.IntRange(1, SELECTED), show_default=True, help="Tokens at once."
)
@prune_option
@window_options
@_measuring
def decode(
    context: int,
    rows: int,
    octaves: int,
    window: int,
    evict: str,
    config: str,
    json_file: str | None,
    **options: Any,
) -> None:
    """One pass of a decoder that ends at position --context: decoding, or verification."""
    sizes = {name: options.pop(name) for name in list(options) if name in SIZES}
    title = f"decode {rows} at {context}{_kept(window, evict)}: " + _named(sizes)
    _check_pruning(octaves, rows, options["trace"])
    measure_decoder(
        title,
        lambda _step: _random(config, rows, context, window, evict, octaves, **sizes),
        rows,
        context,
        json_file,
        **options,
    )


@click.command()
@_shape_options
@click.option("--seq", default=128, type=click.IntRange(min=1), show_default=True, help="Tokens.")
@click.option("--reading", is_flag=True, help="With more of the prompt to come: without the head.")
@_measuring
def prefill(seq: int, config: str, json_file: str | None, **options: Any) -> None:
    """Reading a prompt of --seq tokens in one pass."""
    sizes = {name: options.pop(name) for name in list(options) if name in SIZES}
    title = f"prefill {seq}: " + _named(sizes)
    context = seq + 1
    measure_decoder(
        title,
        lambda _step: _random(config, seq, context, **sizes),
        seq,
        context,
        json_file,
        **options,
    )


def _sequence(
    config: str,
    prompt: str,
    tokens: int,
    of_generator: dict[str, Any],
    json_file: str | None,
    **options: Any,
) -> None:
    """A prompt and what follows it, each pass on golden and on the RTL."""
    from sw.models.generator import Generator

    if not prompt.strip():
        raise InputError("the prompt is empty")
    with steps() as step:
        generator = Generator(config, step=step, **of_generator)
        ids = generator.model.tokens(prompt)
        if len(ids) + tokens > generator.context:  # before anything takes minutes
            raise InputError(
                f"the prompt has {len(ids)} tokens: with --tokens {tokens} they are more than the "
                f"{generator.context} of the context"
            )
        program = generator.program()
        ids = ids[len(program.prefix) :]
        passes = list(measure_sequence(program, ids, tokens, step=step, **options))
    for item in passes:
        known = item["next"] >= 0
        item["text"] = generator.model.tokenizer.decode([item["next"]]) if known else ""
    table = Table(title=f"SmolLM2-135M-Instruct on {program.config.name}: {len(ids)} tokens read")
    for name in ("tokens", "at", "cycles", "of the memory", "equal to golden", "next"):
        table.add_column(name, justify="right")
    for item in passes:
        table.add_row(
            str(item["tokens"]),
            str(item["position"]),
            f"{item['cycles']:,}",
            f"{item['bandwidth_share']:.1%}",
            "yes" if item["bit_exact"] else "[red]NO[/]",
            repr(item["text"]) if item["text"] else "",
        )
    show(table)
    write_json(json_file, {"prompt": prompt, "passes": passes})
    if not all(item["bit_exact"] for item in passes):
        raise SystemExit(2)


def _check_pruning(octaves: int, rows: int, trace: str | None) -> None:
    """Raises `InputError`."""
    if octaves and rows > 1:
        raise InputError(f"--prune-keys with --rows {rows}: only passes of one token prune keys")
    if octaves and trace:
        raise InputError("--trace with --prune-keys: it does not know what was left out")


SIZES = "hidden heads kv_heads ffn layers vocab dim head_norms bits inputs".split()


@click.command()
@click.option("--context", default=512, type=click.IntRange(min=2), show_default=True)
@click.option(
    "--rows", default=1, type=click.IntRange(1, SELECTED), show_default=True, help="Tokens at once."
)
@click.option("--prompt", help="Read this instead, and decode --tokens tokens: every pass.")
@click.option("--tokens", default=4, type=click.IntRange(min=1), show_default=True)
@prune_option
@click.option(
    "--text", "kind", type=click.Choice(KINDS), default="prose", help="What --prune-keys reads."
)
@bits_option
@inputs_option
@window_options
@_measuring
def smollm2(
    context: int,
    rows: int,
    prompt: str | None,
    tokens: int,
    octaves: int,
    kind: str,
    bits: str,
    inputs: str,
    window: int,
    evict: str,
    config: str,
    json_file: str | None,
    **options: Any,
) -> None:
    """The whole SmolLM2-135M on the RTL: one pass that ends at position --context (minutes)."""
    from sw.models.generator import Generator

    check_evict(window, evict)
    if prompt is not None:
        if options.pop("activity"):
            raise InputError("--activity is of one pass, not of a --prompt")
        options.pop("trace")
        generator = {"bits": int(bits), "inputs": int(inputs), "window": window, "evict": evict}
        _sequence(config, prompt, tokens, generator, json_file, **options)
        return

    stored = f", {bits} bits" if bits != "8" else ""
    stored += f", inputs of {inputs}" if inputs != "16" else ""
    title = f"SmolLM2-135M-Instruct, {rows} at {context}{stored}{_kept(window, evict)}"
    passes = (rows,)
    kept = {"bits": int(bits), "window": window, "evict": evict, "octaves": octaves}
    kept["inputs"] = int(inputs)
    _check_pruning(octaves, rows, options["trace"])
    if octaves:
        title += f", {kind}, key blocks within {octaves} octaves"
        options["text"], passes = long_text(kind, context), (1, 128)
    measure_decoder(
        title,
        lambda step: Generator(config, step=step, **kept).program(passes),
        rows,
        context,
        json_file,
        **options,
    )
