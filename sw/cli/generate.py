"""`weft generate` and `weft chat`: a language model on the accelerator, token by token."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import click
from rich.table import Table

from hw.isa import SELECTED
from sw.bench.measure import STALLS
from sw.cli.common import (
    OUTPUT_FILE,
    bits_option,
    config_option,
    device_option,
    device_options,
    memory_options,
    steps,
    write_json,
)
from sw.cli.screen import show
from sw.compiler.errors import InputError
from sw.driver.decoder import LoadedDecoder
from sw.models.generator import Generator, Sampler
from sw.models.language_model import LanguageModel

__all__ = ["chat", "generate"]

MHZ = 100


def _options(command):
    for option in (
        click.option(
            "--model",
            help="A GGUF file, or a folder with config.json, .safetensors files and a tokenizer.  "
            "[default: SmolLM2-135M-Instruct]",
        ),
        click.option(
            "--tokens", default=64, type=click.IntRange(min=1), show_default=True, help="At most."
        ),
        click.option(
            "--context",
            type=click.IntRange(min=16),
            help="Positions of a sequence, prompt and answers together.  [default: 2048, or as "
            "many as the model has]",
        ),
        click.option(
            "--temperature", default=0.0, show_default=True, help="0: always the likeliest token."
        ),
        click.option(
            "--top-k",
            default=SELECTED,
            type=click.IntRange(1, SELECTED),
            show_default=True,
            help="Tokens to choose from.",
        ),
        click.option("--seed", type=int, help="Of the choice."),
        click.option(
            "--window",
            default=0,
            type=click.IntRange(min=0),
            help="Keys and values that stay, besides the first 4: the cache does not fill, and "
            "texts go on to --context.  [default: all]",
        ),
        bits_option,
        memory_options,
        config_option,
        device_option,
    ):
        command = option(command)
    return command


def _generator(
    model: str | None,
    config: str,
    context: int | None,
    bits: str,
    window: int,
    step: Callable[..., Any],
) -> Generator:
    """The generator of a checkpoint, or of SmolLM2."""
    given = LanguageModel(model) if model is not None else None
    return Generator(config, context, step, given, int(bits), window)


class _Stream:
    """Writes text as its tokens come: a letter may take several."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.shown = ""

    def write(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.tokens.append(token)
            text = self.tokenizer.decode(self.tokens)
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                continue
            sys.stdout.write(text[len(self.shown) :])
            sys.stdout.flush()
            self.shown = text
        sys.stdout.write("\n")


def _account(counters: Counter[str], bus_bytes: int) -> dict[str, Any]:
    """What passes cost, from their counters; empty for a device without cycles."""
    cycles = counters["cycles"]
    if not cycles:
        return {}
    return {
        "passes": counters["passes"],
        "cycles": cycles,
        "cycles_per_pass": cycles / counters["passes"],
        "bandwidth_share": counters["needed_bytes"] / (bus_bytes * cycles),
        "matrix_busy": counters["matrix_busy"],
        "stalls": {name: counters[name] for name in STALLS},
        "predicted_seconds_per_pass_at_100_mhz": cycles / counters["passes"] / (MHZ * 1e6),
    }


def _show(account: dict[str, Any]) -> None:
    """Where the cycles of decoding went."""
    if not account:
        return
    cycles, table = account["cycles"], Table(title="Decoding, one token after the other")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    seconds = account["predicted_seconds_per_pass_at_100_mhz"]
    table.add_row("cycles a token", f"{account['cycles_per_pass']:,.0f}", "")
    table.add_row("weights, keys and values to read", "", f"{account['bandwidth_share']:.1%}")
    table.add_row(
        "multiplying", f"{account['matrix_busy']:,}", f"{account['matrix_busy'] / cycles:.1%}"
    )
    for name, count in account["stalls"].items():
        table.add_row(STALLS[name], f"{count:,}", f"{count / cycles:.1%}")
    table.add_row(f"tokens a second at {MHZ} MHz (predicted)", f"{1 / seconds:.1f}", "")
    show(table)


def _passes(model: LoadedDecoder, before: Counter[str]) -> Counter[str]:
    return Counter({name: count - before[name] for name, count in model.counters.items()})


@click.command()
@click.argument("prompt")
@_options
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write text and counters to this file.")
def generate(
    prompt: str,
    model: str | None,
    tokens: int,
    context: int | None,
    temperature: float,
    top_k: int,
    seed: int | None,
    bits: str,
    window: int,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """Answer PROMPT with a language model, token by token."""
    if not prompt.strip():
        raise InputError("the prompt is empty")
    sampler = Sampler(temperature, top_k, seed)
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        generator = _generator(model, config, context, bits, window, step)
        ids = generator.model.prompt([{"role": "user", "content": prompt}])
        generator.check_room(len(ids), generator.context)  # before anything takes minutes
        opened = generator.open(device, **options)
        program = generator.program()
        step("Reading the prompt")
        decoder = opened.load_decoder(program)
        session = decoder.session()
        ids = ids[session.position :]
        answer = generator.answer(session, ids, tokens, sampler)
        first = next(answer, None)
    with opened:
        read, stream = Counter(decoder.counters), _Stream(generator.model.tokenizer)
        try:
            stream.write([] if first is None else _chain(first, answer))
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        account = _account(_passes(decoder, read), generator.config.bus_bytes)
    if not session.room:
        click.echo("The context is full.", err=True)
    _show(account)
    write_json(
        json_file,
        {
            "prompt": prompt,
            "prompt_tokens": len(ids),
            "text": stream.shown,
            "tokens": stream.tokens,
            "decoding": account,
            "prompt_cycles": read["cycles"],
        },
    )


def _chain(first: int, rest: Iterable[int]) -> Iterable[int]:
    yield first
    yield from rest


@click.command()
@_options
def chat(
    model: str | None,
    tokens: int,
    context: int | None,
    temperature: float,
    top_k: int,
    seed: int | None,
    bits: str,
    window: int,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
) -> None:
    """Talk with a language model; what was said stays in its cache. An empty line ends, or the end
    of the input."""
    sampler = Sampler(temperature, top_k, seed)
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        generator = _generator(model, config, context, bits, window, step)
        if not generator.model.chats:
            raise InputError(f"{generator.model.name} has no chat template: use weft generate")
        opened = generator.open(device, **options)  # before anything takes minutes
        program = generator.program()
        decoder = opened.load_decoder(program)
    with opened:
        session, messages, held = decoder.session(), [], list(program.prefix)
        while True:
            try:
                text = click.prompt(">", default="", show_default=False, prompt_suffix=" ")
            except click.Abort:  # Ctrl-D, or Ctrl-C
                sys.stdout.write("\n")
                return
            if not text.strip():
                return
            messages.append({"role": "user", "content": text})
            ids = generator.model.prompt(messages)
            # What the session holds already is not said again.
            common = 0
            while common < min(len(held), len(ids)) and held[common] == ids[common]:
                common += 1
            session.rewind(max(common, len(program.prefix)))
            stream = _Stream(generator.model.tokenizer)
            try:
                rest = ids[session.position :]
                stream.write(generator.answer(session, rest, tokens, sampler))
            except KeyboardInterrupt:
                sys.stdout.write("\n")
            held = [*ids, *stream.tokens][: session.position]
            messages.append({"role": "assistant", "content": stream.shown})
