"""`weft generate` and `weft chat`: a language model on the accelerator, token by token."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click
from rich.table import Table

from hw.isa import SELECTED
from sw.bench.measure import STALLS
from sw.cli.cascading import Cascading, cascade_options
from sw.cli.common import (
    OUTPUT_FILE,
    bits_option,
    check_evict,
    config_option,
    device_option,
    device_options,
    inputs_option,
    memory_options,
    prune_option,
    steps,
    window_options,
    write_json,
)
from sw.cli.drafting import Drafting
from sw.cli.screen import show
from sw.compiler.errors import InputError
from sw.decoding.cascade import Cascade
from sw.decoding.cascade_session import CascadeSession
from sw.decoding.decoding import Decoding, Step, check_room
from sw.decoding.sampler import Sampler
from sw.driver.session import Session
from sw.models.generator import Generator
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
        window_options,
        prune_option,
        bits_option,
        inputs_option,
        click.option(
            "--draft",
            metavar="lookup|MODEL|PROGRAM",
            help="Draft tokens, and verify several in a pass: copies of the text so far, or what a "
            "smaller model with the same vocabulary says.  [default: no drafts]",
        ),
        click.option(
            "--draft-tokens",
            metavar="auto|1..7",
            help="Drafts in a pass; auto: as many as pay.  [default: auto]",
        ),
        cascade_options,
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
    inputs: str,
    window: int,
    evict: str,
    octaves: int,
    step: Callable[..., Any],
) -> Generator:
    """The generator of a checkpoint, or of SmolLM2."""
    check_evict(window, evict)
    given = LanguageModel(model) if model is not None else None
    return Generator(config, context, step, given, int(bits), window, evict, octaves, int(inputs))


def _check_pruning(octaves: int, draft: str | None, small: str | None) -> None:
    """Raises `InputError` for what needs passes of several tokens."""
    for option, value in (("--draft", draft), ("--cascade", small)):
        if octaves and value is not None:
            raise InputError(
                f"--prune-keys with {option}: passes of several tokens prune nothing, so what they "
                "say is not what single tokens would give; leave one out"
            )


def _answer(
    cascade: Cascade | None,
    decoding: Decoding,
    session: Session,
    text: Sequence[int],
    tokens: int,
) -> Iterator[int]:
    """Tokens behind a text, of the model or of a cascade."""
    if cascade is None:
        return decoding.answer(session, text, tokens)
    assert isinstance(session, CascadeSession)
    return cascade.answer(decoding, session, text, tokens)


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


def _account(counters: Counter[str], steps: Sequence[Step], bus_bytes: int) -> dict[str, Any]:
    """What decoding cost, from counters of passes; of a device without cycles, what it counts."""
    tokens, drafted = sum(s.tokens for s in steps), sum(s.drafted for s in steps)
    found: dict[str, Any] = {}
    if drafted:
        found["drafts"] = {
            "drafted": drafted,
            "accepted": sum(s.accepted for s in steps),
            "steps": len(steps),
            "tokens_per_step": tokens / len(steps),
            "expected_speedup": sum(s.plain for s in steps) / sum(s.cycles for s in steps),
        }
    cycles = counters["cycles"]
    if not cycles:
        return found
    return {
        "passes": counters["passes"],
        "cycles": cycles,
        "cycles_per_pass": cycles / counters["passes"],
        "cycles_per_token": cycles / tokens,
        "bandwidth_share": counters["needed_bytes"] / (bus_bytes * cycles),
        "matrix_busy": counters["matrix_busy"],
        "stalls": {name: counters[name] for name in STALLS},
        "predicted_seconds_per_token_at_100_mhz": cycles / tokens / (MHZ * 1e6),
        **found,
    }


def _show(account: dict[str, Any]) -> None:
    """Where the cycles of decoding went, and what drafts were worth."""
    if not account:
        return
    table = Table(title="Decoding")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    if "cycles" in account:
        cycles, seconds = account["cycles"], account["predicted_seconds_per_token_at_100_mhz"]
        table.add_row("cycles a token", f"{account['cycles_per_token']:,.0f}", "")
        table.add_row("weights, keys and values to read", "", f"{account['bandwidth_share']:.1%}")
        busy = account["matrix_busy"]
        table.add_row("multiplying", f"{busy:,}", f"{busy / cycles:.1%}")
        for name, count in account["stalls"].items():
            table.add_row(STALLS[name], f"{count:,}", f"{count / cycles:.1%}")
        table.add_row(f"tokens a second at {MHZ} MHz (predicted)", f"{1 / seconds:.1f}", "")
    if "cascade" in account:
        cascade = account["cascade"]
        table.add_row("threshold of the small model", f"{cascade['threshold']:.3f}", "")
        table.add_row("the large model was asked, times", f"{cascade['asked']:,}", "")
    if "drafts" in account:
        drafts = account["drafts"]
        right = drafts["accepted"] / drafts["drafted"]
        table.add_row("drafts, and how many were right", f"{drafts['drafted']:,}", f"{right:.1%}")
        table.add_row("tokens a step", f"{drafts['tokens_per_step']:.2f}", "")
        speedup = drafts["expected_speedup"]
        table.add_row("cycles without drafts, of those with (expected)", f"{speedup:.2f}x", "")
    show(table)


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
    inputs: str,
    window: int,
    evict: str,
    octaves: int,
    draft: str | None,
    draft_tokens: str | None,
    small: str | None,
    agreement: float | None,
    threshold: float | None,
    test: str,
    by: str,
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
    drafting = Drafting(draft, draft_tokens)
    cascading = Cascading(small, agreement, threshold, test, by)
    _check_pruning(octaves, draft, small)
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        generator = _generator(model, config, context, bits, inputs, window, evict, octaves, step)
        ids = generator.model.prompt([{"role": "user", "content": prompt}])
        check_room(len(ids), generator.context)  # before anything takes minutes
        drafting.prepare(generator, step)
        cascading.prepare(generator, int(bits), step)
        opened = generator.open(device, **options)
        decoders, decoding = drafting.load(opened, generator, sampler, *cascading.programs)
        cascade = cascading.load(decoders, generator, sampler, step)
        session = cascade.session() if cascade else decoders[0].session()
        before = drafting.counters()
        step("Reading the prompt")
        answer = _answer(cascade, decoding, session, ids, tokens)
        first = next(answer, None)
    with opened:
        read = drafting.counters()
        stream = _Stream(generator.model.tokenizer)
        try:
            stream.write([] if first is None else _chain(first, answer))
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        counters = drafting.counters()
        all_cycles = counters["expected_cycles"] - before["expected_cycles"]
        counters.subtract(read)
        account = _account(counters, decoding.steps, generator.config.bus_bytes)
        if isinstance(session, CascadeSession):
            assert cascade is not None
            account["cascade"] = {
                "threshold": cascade.threshold,
                "asked": session.asked,
                "expected_cycles": all_cycles,  # the prompt's, too
            }
    if not session.room:
        click.echo("The context is full.", err=True)
    _show(account)
    write_json(
        json_file,
        {
            "prompt": prompt,
            "prompt_tokens": len(ids) - len(decoders[0].program.prefix),
            "text": stream.shown,
            "tokens": stream.tokens,
            "decoding": account,
            "prompt_cycles": read["cycles"] - before["cycles"],
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
    inputs: str,
    window: int,
    evict: str,
    octaves: int,
    draft: str | None,
    draft_tokens: str | None,
    small: str | None,
    agreement: float | None,
    threshold: float | None,
    test: str,
    by: str,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
) -> None:
    """Talk with a language model; what was said stays in its cache. An empty line ends, or the end
    of the input."""
    sampler, drafting = Sampler(temperature, top_k, seed), Drafting(draft, draft_tokens)
    cascading = Cascading(small, agreement, threshold, test, by)
    _check_pruning(octaves, draft, small)
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        generator = _generator(model, config, context, bits, inputs, window, evict, octaves, step)
        if not generator.model.chats:
            raise InputError(f"{generator.model.name} has no chat template: use weft generate")
        drafting.prepare(generator, step)
        cascading.prepare(generator, int(bits), step)
        opened = generator.open(device, **options)  # before anything takes minutes
        decoders, decoding = drafting.load(opened, generator, sampler, *cascading.programs)
        cascade = cascading.load(decoders, generator, sampler, step)
    with opened:
        prefix = list(decoders[0].program.prefix)
        session = cascade.session() if cascade else decoders[0].session()
        messages, held = [], prefix
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
            begin = max(common, len(prefix))
            session.rewind(begin if session.keeps(begin) else len(prefix))
            stream = _Stream(generator.model.tokenizer)
            try:
                stream.write(_answer(cascade, decoding, session, ids, tokens))
            except KeyboardInterrupt:
                sys.stdout.write("\n")
            held = [*ids, *stream.tokens][: session.position]
            messages.append({"role": "assistant", "content": stream.shown})
