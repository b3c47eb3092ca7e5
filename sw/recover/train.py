"""Distillation of a pruned student against its float teacher, masks kept.

The loss is the mean over all layer norms' results of the squared error, relative to the teacher's
variance, and one minus the cosine of the outputs. Trained are the kept weights, biases and norms,
not the embedding tables. AdamW, a short linear warmup, then linear decay to zero.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sw.compiler.errors import CompileError
from sw.recover.checkpoint import Checkpoint, Point, fingerprint
from sw.recover.prune import prune
from sw.recover.student import Model

__all__ = ["Batches", "Limits", "Settings", "Training"]

EVALUATIONS = 40
CALIBRATION_BATCHES = 32

Inputs = tuple[Tensor, ...]
Readout = Callable[[Sequence[Tensor]], Tensor]
"""From the module's outputs to the rows [rows, features] whose cosine counts."""


class Batches(Protocol):
    """Training data without end: every epoch in an order of its own, the same each time.

    A batch is a list of inputs for the module, whose gradients are added.
    """

    def epoch(self, number: int) -> Iterator[list[Inputs]]: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run cannot change when it is taken up again.

    cosine: how much the cosine of the outputs counts beside the hidden states. bfloat16: multiply
    in bfloat16, weights stay float32. batch: of the data, in its units.
    """

    rate: float = 5e-4
    warmup: float = 0.03
    cosine: float = 5.0
    betas: tuple[float, float] = (0.9, 0.98)
    seed: int = 0
    batch: int = 1
    bfloat16: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the run ends: after minutes of training, or steps, whichever comes first."""

    minutes: float | None = None
    steps: int | None = None
    checkpoint_seconds: float = 60.0

    def done(self, seconds: float, step: int) -> float:
        """Part that is done, 0 to 1."""
        parts = [0.0]
        if self.minutes is not None:
            parts.append(seconds / (60 * self.minutes))
        if self.steps is not None:
            parts.append(step / self.steps)
        return min(1.0, max(parts))


def _rows(inputs: Inputs) -> int:
    """Rows of the first input: tokens, or vectors of features."""
    first = inputs[0]
    return first.shape[:-1].numel() if first.is_floating_point() else first.numel()


class Training:
    """One run: `start` or `resume`, then `run`.

    Parameters
    ----------
    teacher, student: two copies of the float module.
    names: weights of the linears that are 2:4, or None where `student` is pruned already: its
        shapes and its zeros stay.
    held_out: inputs that are never trained on, for the curve.
    """

    def __init__(
        self,
        teacher: Model,
        student: Model,
        names: Sequence[str] | None,
        batches: Batches,
        held_out: Sequence[Inputs],
        readout: Readout,
        settings: Settings,
    ) -> None:
        self.teacher, self.student = teacher, student
        self.names = list(student.linears) if names is None else list(names)
        self.given = names is None
        self.batches, self.held_out, self.readout = batches, held_out, readout
        self.settings = settings
        self.trained = student.trainable()
        for name, parameter in student.parameters.items():
            parameter.requires_grad_(name in self.trained)
        self.optimiser = torch.optim.AdamW(
            [student.parameters[name] for name in self.trained],
            lr=settings.rate,
            betas=settings.betas,
            weight_decay=0.0,
        )
        self.masks: dict[str, Tensor] = {}
        self.exact = self._embed(teacher)
        key = fingerprint(dict(teacher.parameters))
        described = {**vars(settings), "betas": list(settings.betas), "linears": self.names}
        if self.given:
            described["student"] = fingerprint(dict(student.parameters))
        self.state = Checkpoint(key, described, {})

    # --- beginning ----------------------------------------------------------------------------

    def start(self, update: Callable[[float, float], None] = lambda _done, _total: None) -> None:
        """Prune the student, if it is not."""
        if not self.given:
            self._prune(update)
        self.masks = {name: self.student.parameter(name) != 0 for name in self.names}

    def _prune(self, update: Callable[[float, float], None]) -> None:
        batches = itertools.islice(self.batches.epoch(0), CALIBRATION_BATCHES)
        inputs = [item for batch in batches for item in batch]
        prune(self.teacher, self.student, inputs, self.names, update)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint. Raises `CompileError` if it belongs to another run."""
        self.state = Checkpoint.load(path, self.state.model, self.state.settings)
        self.masks = {name: mask.bool() for name, mask in self.state.part("mask").items()}
        for name, weight in self.state.part("weight").items():
            self.student.parameter(name).copy_(weight)
        first, second = self.state.part("first"), self.state.part("second")
        for name in first:
            self.optimiser.state[self.student.parameters[name]] = {
                "step": torch.tensor(float(self.state.step)),
                "exp_avg": first[name],
                "exp_avg_sq": second[name],
            }
        self.state.tensors = {}

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        tensors = {f"weight/{n}": self.student.parameter(n) for n in self.trained}
        tensors |= {f"mask/{n}": mask for n, mask in self.masks.items()}
        for name in self.trained:
            moments = self.optimiser.state.get(self.student.parameters[name])
            if moments:
                tensors[f"first/{name}"] = moments["exp_avg"]
                tensors[f"second/{name}"] = moments["exp_avg_sq"]
        self.state.tensors = tensors
        self.state.save(path)
        self.state.tensors = {}

    # --- training -----------------------------------------------------------------------------

    def run(
        self,
        limits: Limits,
        path: Path,
        report: Callable[[float, int, float, Point], None] = lambda *_: None,
    ) -> list[Point]:
        """Train to the limits, with checkpoints at `path`; returns the curve.

        report(part done, step, loss, last point of the curve) is called after each step.
        """
        state = self.state
        begun = time.monotonic() - state.seconds
        begun_processor = time.process_time() - state.processor_seconds
        saved, losses = time.monotonic(), []
        if not state.curve:
            state.curve.append(self.evaluate(0.0))
        try:
            for batch in self._data():
                done = limits.done(state.seconds, state.step)
                if done >= 1:
                    break
                loss = self._step(batch, done)
                losses.append(loss)
                state.step += 1
                state.batch += 1
                state.rows += sum(_rows(inputs) for inputs in batch)
                state.seconds = time.monotonic() - begun
                state.processor_seconds = time.process_time() - begun_processor
                after = limits.done(state.seconds, state.step)
                if int(after * EVALUATIONS) > int(done * EVALUATIONS):
                    state.curve.append(self.evaluate(sum(losses) / len(losses)))
                    losses = []
                report(after, state.step, loss, state.curve[-1])
                if time.monotonic() - saved > limits.checkpoint_seconds:
                    self.save(path)
                    saved = time.monotonic()
        finally:
            self.save(path)
        return state.curve

    def _data(self) -> Iterator[list[Inputs]]:
        while True:
            epoch = self.batches.epoch(self.state.epoch)
            yield from itertools.islice(epoch, self.state.batch, None)
            self.state.epoch, self.state.batch = self.state.epoch + 1, 0

    def _step(self, batch: list[Inputs], done: float) -> float:
        warm = min(1.0, (done + 1e-3) / self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate * warm * (1 - done)
        total = 0.0
        for inputs in batch:
            loss = self._loss(inputs) / len(batch)
            loss.backward()
            total += loss.item()
        for name, mask in self.masks.items():
            gradient = self.student.parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if math.isnan(total):
            raise CompileError(
                f"the loss is not a number at step {self.state.step}: try a smaller --rate"
            )
        return total

    def _loss(self, inputs: Inputs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            with torch.no_grad():
                outputs, hidden = self.teacher.run(inputs)
            found_outputs, found = self.student.run(inputs)
        terms = [
            (b.float() - a.float()).square().mean() / (a.float().var() + 1e-12)
            for a, b in zip(hidden or outputs, found if hidden else found_outputs, strict=True)
        ]
        a, b = self.readout(outputs).float(), self.readout(found_outputs).float()
        cosine = (normalize(a, dim=-1) * normalize(b, dim=-1)).sum(dim=-1).mean()
        return torch.stack(terms).mean() + self.settings.cosine * (1 - cosine)

    # --- measuring ----------------------------------------------------------------------------

    def _embed(self, model: Model) -> list[Tensor]:
        with torch.no_grad():
            return [
                normalize(self.readout(model.run(x)[0]).double(), dim=-1) for x in self.held_out
            ]

    def evaluate(self, loss: float) -> Point:
        """Cosine of student and teacher on the held-out data, in float32."""
        pairs = zip(self.exact, self._embed(self.student), strict=True)
        cosine = torch.cat([(a * b).sum(dim=-1).reshape(-1) for a, b in pairs])
        s = self.state
        mean, least = float(cosine.mean()), float(cosine.min())
        minutes, processor = s.seconds / 60, s.processor_seconds / 60
        return Point(minutes, processor, s.step, s.rows, loss, mean, least)
