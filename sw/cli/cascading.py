"""The options of `--cascade`: from what the user says to a cascade whose threshold is known."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sim.cache import kept, source_digest
from sw.bench.speculation import KINDS, prompts_of
from sw.cli.second_model import SecondModel
from sw.compiler.errors import InputError
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.calibration import Observed, digest_of, observe
from sw.decoding.cascade import UNITS, Cascade
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import TESTS, check_agreement, check_threshold
from sw.driver.decoder import LoadedDecoder
from sw.models.generator import Generator
from sw.models.language_model import LanguageModel

__all__ = ["Cascading", "calibration_prompts", "cascade_options", "observed"]

FOUR_BITS = "4"
ANSWER = 64
"""Tokens of an answer that calibration reads, at most."""
SHORTEST = 8
"""Tokens of an answer for which a prompt must leave room."""


def cascade_options(command: Callable) -> Callable:
    """--cascade and what belongs to it."""
    for option in (
        click.option(
            "--cascade",
            "small",
            metavar="4|MODEL|PROGRAM",
            help="A small model answers, and the model where that doubts itself: the model with "
            "weights of 4 bits, or another one with the same vocabulary.",
        ),
        click.option(
            "--agreement",
            type=float,
            help="Of the cascade's tokens with the model's; the threshold is calibrated (once, "
            "minutes).  [default: 0.99]",
        ),
        click.option(
            "--threshold", type=float, help="Instead of that; 0: never the model, 1: always."
        ),
        click.option(
            "--self-test",
            "test",
            type=click.Choice([*TESTS]),
            default="margin",
            show_default=True,
            help="By what the small model doubts.",
        ),
        click.option(
            "--cascade-by",
            "by",
            type=click.Choice(UNITS),
            default="token",
            show_default=True,
            help="What the model takes over: a token, or a whole answer.",
        ),
    ):
        command = option(command)
    return command


def calibration_prompts(model: LanguageModel, context: int, first: int = 0) -> list[list[int]]:
    """Every other prompt of each kind, as tokens, that has room for an answer in a context; `weft
    bench cascade` measures the others, and the other way round. Raises `InputError` if there is
    none."""
    texts = [prompt for kind in KINDS for prompt in prompts_of(kind)[first::2]]
    prompts = [model.prompt([{"role": "user", "content": text}]) for text in texts]
    fitting = [ids for ids in prompts if len(ids) + SHORTEST <= context]
    if not fitting:
        raise InputError(
            f"--cascade: no prompt of the calibration fits into {context} positions: make "
            "--context larger, or give a --threshold"
        )
    return fitting


def observed(
    small: LoadedDecoder,
    large: LoadedDecoder,
    prompts: Sequence[Sequence[int]],
    ends: frozenset[int],
    tokens: int,
    step: Callable[[str], Any],
) -> Observed:
    """What the small model says where the large one answers prompts, kept for these programs."""
    digest = digest_of((small.program, large.program), (prompts, sorted(ends), tokens))
    name = f"cascade-{digest}-{source_digest('sw/decoding/calibration.py')}.npz"

    def make(_work: Path) -> bytes:
        update = step("Calibrating: the large model answers, the small one reads (once; minutes)")
        found = observe(small, large, prompts, ends, tokens, update)
        data = io.BytesIO()
        np.savez(data, logs=found.logs, right=found.right)
        return data.getvalue()

    with np.load(kept("texts", name, make)) as arrays:
        return Observed(arrays["logs"], arrays["right"])


class Cascading:
    """What the user wants, checked in steps, as `Drafting`. Raises `InputError`."""

    def __init__(
        self,
        small: str | None,
        agreement: float | None,
        threshold: float | None,
        test: str,
        by: str,
    ):
        self.small, self.test, self.by = small, test, by
        self.agreement = 0.99 if agreement is None else agreement
        self.threshold = threshold
        given = {"--agreement": agreement, "--threshold": threshold}
        for name, value in given.items():
            if small is None and value is not None:
                raise InputError(f"{name} needs --cascade: the small model")
        if None not in given.values():
            raise InputError("--agreement and --threshold: one of the two says when it doubts")
        if threshold is not None:
            check_threshold(threshold)
        check_agreement(self.agreement)
        if small is not None and by == "answer" and threshold is None:
            raise InputError(
                "--cascade-by answer needs --threshold: calibration compares tokens, and hardly an "
                "answer is the same to its end"
            )
        self._program: Callable[[], DecoderProgram] | None = None

    def prepare(self, generator: Generator, bits: int, step: Callable[[str], Any]) -> None:
        """Read the files of the small model, and compare its vocabulary with the model's, whose
        weights have so many bits."""
        if self.small is None:
            return
        if self.small == FOUR_BITS:
            if bits == 4:
                raise InputError("--cascade 4 with --bits 4: the small model is the model itself")
            model = Generator(
                generator.config,
                generator.context,
                step,
                generator.model,
                bits=4,
                window=generator.window,
                evict=generator.evict,
            )
            model.check()
            self._program = model.program
            return
        second = SecondModel(
            self.small,
            generator,
            step,
            option="--cascade",
            need="a cascade needs",
            others=FOUR_BITS,
            window=generator.window,
            evict=generator.evict,
        )
        self._program = lambda: second.program

    @property
    def programs(self) -> list[DecoderProgram]:
        """The small model's, if there is one."""
        return [] if self._program is None else [self._program()]

    def load(
        self,
        models: Sequence[LoadedDecoder],
        generator: Generator,
        sampler: Sampler,
        step: Callable[[str], Any],
    ) -> Cascade | None:
        """The cascade, calibrated. models: the large one, and the small one behind it."""
        if self.small is None:
            return None
        large, small = models[:2]
        cascade = Cascade([small, large], self.test, by=self.by, sampler=sampler)
        if self.threshold is None:
            context = min(model.program.state.slots for model in (small, large))
            prompts = calibration_prompts(generator.model, context)
            ends = generator.model.checkpoint.ends
            found = observed(small, large, prompts, ends, ANSWER, step)
            self.threshold = found.threshold(self.test, self.agreement)
        cascade.threshold = self.threshold
        return cascade
