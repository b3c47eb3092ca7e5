"""A model whose optimisations are measured: which apply to it, and what it takes with some of them.

The plain machine has dense INT8 weights and none of the optimisations: each operation reads its
operands from memory, loads and computing take turns, softmax passes twice over the keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from hw.config import AcceleratorConfig
from sw.compiler.errors import InputError
from sw.compiler.lower.switches import Switches
from sw.compound.gains import Chosen, Cost
from sw.energy import Counts, Table, estimate

__all__ = ["METRICS", "OPTIMISATIONS", "Subject", "costs_of", "switches_of", "with_sleep"]

OPTIMISATIONS = {
    "formats": "weights of 4 bits",
    "2:4": "half of the weights pruned, two of four",
    "structured": "heads and channels cut",
    "tokens": "no rows of padding",
    "speculation": "drafts copied from the text",
    "cascade": "a small model first",
    "sleep": "units without work keep their registers",
    "fusion": "no memory between operations",
    "prefetch": "loads ahead of the products",
    "softmax": "one pass over the keys",
}
"""All there are, in the order of tables."""

METRICS = ("cycles", "bytes", "energy")
ENDS = ("value", "low", "high")
"""Of a `Quantity`."""


class Subject(ABC):
    """A model and its work.

    Members
    -------
    name, work: for titles. unit: what costs are of. offers: names of its optimisations, which
    `OPTIMISATIONS` has. refuses: reasons why others do not apply, by name.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    offers: ClassVar[tuple[str, ...]]
    refuses: ClassVar[Mapping[str, str]]
    work: str

    @abstractmethod
    def counts(self, chosen: Chosen) -> Counts:
        """What the machine does for one `unit` of work, as the compiler's cost model expects."""

    @abstractmethod
    def accuracy(self, chosen: Chosen) -> dict[str, float]:
        """Figures of the results against float32, the first one that of tables."""

    @abstractmethod
    def changes_results(self, chosen: Chosen) -> Chosen:
        """Those of the optimisations that change results; all others give the same bytes."""

    @classmethod
    def choose(
        cls, names: Sequence[str], others: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[str, ...]:
        """The optimisations named, by default all that apply, in order. others: that do not, with
        reasons, as in `refuses`. Raises `InputError`."""
        refuses = {**cls.refuses, **others}
        for name in names:
            if name not in OPTIMISATIONS:
                known = ", ".join(OPTIMISATIONS)
                raise InputError(f"unknown optimisation {name!r}: there are {known}")
            if name in refuses:
                raise InputError(f"{name} does not apply to {cls.name}: {refuses[name]}")
        offers = [name for name in cls.offers if name not in refuses]
        chosen = tuple(name for name in offers if not names or name in names)
        if len(chosen) == 1:
            raise InputError(f"{chosen[0]} alone has nothing to multiply with: name two or more")
        return chosen


def switches_of(chosen: Chosen) -> Switches:
    """How to lower."""
    return Switches(
        fuse="fusion" in chosen, prefetch="prefetch" in chosen, one_pass="softmax" in chosen
    )


def with_sleep(config: AcceleratorConfig, chosen: Chosen) -> AcceleratorConfig:
    """The machine."""
    return replace(config, sleep="sleep" in chosen)


def costs_of(counts: Counts, table: Table) -> dict[str, Cost]:
    """By metric, energy by the low and the high ends of the table, too. Parts of cycles: the array
    works, or waits; of bytes: what is moved; of energy: those of `sw.energy`."""
    waits = min(counts["idle_array"], counts.cycles)
    parts = estimate(counts, table).parts
    energy = {end: {name: getattr(part, end) for name, part in parts.items()} for end in ENDS}
    return {
        "cycles": Cost({"the array works": counts.cycles - waits, "the array waits": waits}),
        "bytes": Cost(_moved(counts)),
        "energy": Cost(energy["value"]),
        **{f"energy, {end}": Cost(energy[end]) for end in ENDS[1:]},
    }


def _moved(counts: Counts) -> dict[str, float]:
    """Bytes by the memory that they come from or go to; the rest are commands."""
    c = counts.config
    pitch = {
        "activation": c.activation_pitch,
        "weight": c.weight_pitch,
        "residual": c.residual_pitch,
        "param0": c.param_pitch,
        "param1": c.param_pitch,
        "mask": c.mask_pitch,
    }

    def moved(ways: Iterable[str]) -> dict[str, float]:
        return {name: size * sum(counts[f"{name}_{way}"] for way in ways)
                for name, size in pitch.items()}  # fmt: skip

    found = moved(("write_load", "read_store"))
    found |= {name: pitch[name] * counts[f"{name}_write"] for name in ("param0", "param1", "mask")}
    commands = counts.read_bytes + counts.write_bytes - sum(found.values())
    return found | {"commands": commands}
