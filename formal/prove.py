"""Proves properties of units, and that each of them can fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from formal.engines import Circuit, EngineError
from formal.model import Model
from formal.mutants import Mutant, applied

__all__ = ["Bounded", "Induction", "Proof", "ProofError", "Reachability", "check", "kills"]

SECONDS, MUTANT_SECONDS = 600, 60
"""Of an engine's time, for a proof and for a mutant."""


class ProofError(AssertionError):
    """A property does not hold, or could not be proved; the text says which."""


@dataclass(frozen=True)
class Induction:
    """Unbounded: what held for `steps` cycles holds in the next, and from the start for as many."""

    steps: int = 1

    def __str__(self) -> str:
        return f"induction, {self.steps}"

    def weak(self, circuit: Circuit, names: list[str]) -> list[str]:
        """Those that are not proved."""
        return [names[k] for k in circuit.not_inductive(len(names), self.steps, SECONDS)]

    @property
    def frames(self) -> int:
        return self.steps


@dataclass(frozen=True)
class Reachability:
    """Unbounded: property directed reachability (IC3) finds an invariant by itself."""

    frames, steps = 10, 0

    def __str__(self) -> str:
        return "reachability"

    def weak(self, circuit: Circuit, names: list[str]) -> list[str]:
        return [] if circuit.is_invariant(SECONDS) else names


@dataclass(frozen=True)
class Bounded:
    """In the first `frames` cycles after the start, and nothing beyond."""

    frames: int
    steps = 0

    def __str__(self) -> str:
        return f"bounded, {self.frames} cycles"

    def weak(self, circuit: Circuit, names: list[str]) -> list[str]:
        return []


@dataclass(frozen=True)
class Proof:
    """Properties of a unit, how they are proved, and who breaks them.

    name: of the proof, `dma.store`. models: how to make the model, by the sizes that it has; where
    there are several, mutants are tried on the last. mutants: at least one for each property.
    cycles: that a mutant is watched for. quick: a matter of a few seconds, for `make test`.
    """

    name: str
    models: dict[str, Callable[[], Model]]
    method: Induction | Reachability | Bounded
    mutants: tuple[Mutant, ...] = field(repr=False)
    cycles: int = 40
    quick: bool = True


def check(proof: Proof) -> list[str]:
    """Proves all properties of a unit together; returns their names. Raises `ProofError`."""
    properties = []
    for sizes, build in proof.models.items():
        model = build()
        names = [*model.properties, *model.lemmas]
        where = f"{proof.name} ({sizes})"
        with _circuit(model, names, proof.method.steps) as circuit:
            frame = circuit.first_failure(proof.method.frames, SECONDS)
            weak = proof.method.weak(circuit, names) if frame is None else []
        if frame is not None:
            failing = [name for name in names if _fails(build(), name, frame + 1)]
            raise ProofError(f"{where}: {', '.join(failing)} fails in cycle {frame}")
        if weak:
            raise ProofError(f"{where}: {proof.method} does not prove {', '.join(weak)}")
        properties = model.properties
    return properties


def kills(proof: Proof) -> Iterator[tuple[Mutant, int | None]]:
    """For each mutant the cycle in which its property fails, None if it never does."""
    build = list(proof.models.values())[-1]
    for mutant in proof.mutants:
        with applied(mutant):
            model = build()
        with _circuit(model, [mutant.kills]) as circuit:
            try:
                frame = circuit.first_failure(proof.cycles, MUTANT_SECONDS)
            except EngineError:  # not in time
                frame = None
            yield mutant, frame


def _fails(model: Model, name: str, frames: int) -> bool:
    with _circuit(model, [name]) as circuit:
        return circuit.first_failure(frames, SECONDS) is not None


@contextmanager
def _circuit(model: Model, names: list[str], steps: int = 0) -> Iterator[Circuit]:
    with tempfile.TemporaryDirectory(prefix="weft-proof-") as folder:
        yield Circuit.of(model.rtlil(names, steps), Path(folder))
