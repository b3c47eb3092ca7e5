"""All of a compound report: what was counted, what follows, and the record of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sw.bench.measure import Step, silent
from sw.compound.gains import NONE, Chosen, Cost, Joint, joint_gain, needed
from sw.compound.subject import METRICS, OPTIMISATIONS, Subject, costs_of
from sw.energy import Counts, Table

__all__ = ["COUNTERS", "Report", "explained", "label", "measure", "record", "sets_of"]

COUNTERS = {
    "cycles": "cycles",
    "the array works": "cycles in which rows or weights enter the array",
    "the array waits": "cycles in which neither does",
    "the bus moves": "cycles in which the bus moves bytes, if it never pauses",
    "vector groups": "groups that enter the vector lanes",
    "weights": "bytes of weights, keys and values that are loaded or stored",
    "activations": "bytes of all others, without commands",
    "commands": "bytes of commands",
}
"""What the sets of a pair are compared by."""


@dataclass(frozen=True)
class Report:
    """counts, costs: of all that `needed` names. joints: by metric. ends: of energy, by the low and
    the high ends of the table. accuracies: by those of the optimisations that change results, or
    none."""

    subject: Subject
    names: tuple[str, ...]
    table: Table
    counts: Mapping[Chosen, Counts]
    costs: Mapping[Chosen, Mapping[str, Cost]]
    joints: Mapping[str, Joint]
    ends: tuple[Joint, Joint]
    accuracies: Mapping[Chosen, Mapping[str, float]]

    def accuracy(self, chosen: Chosen) -> Mapping[str, float]:
        return self.accuracies.get(self.subject.changes_results(chosen), {})

    @property
    def all(self) -> Chosen:
        return frozenset(self.names)


def label(chosen: Iterable[str]) -> str:
    """Names in order, as one text."""
    wanted = set(chosen)
    return " + ".join(name for name in OPTIMISATIONS if name in wanted) or "none"


def measure(
    subject: Subject, names: Sequence[str], table: Table, step: Step = silent, judge: bool = True
) -> Report:
    """Count all sets; judge: and measure the accuracy of each optimisation alone and of all."""
    counts = {chosen: subject.counts(chosen) for chosen in _tracked(list(needed(names)), step)}
    costs = {chosen: costs_of(found, table) for chosen, found in counts.items()}

    def joint(metric: str) -> Joint:
        return joint_gain({chosen: cost[metric] for chosen, cost in costs.items()}, names)

    joints = {metric: joint(metric) for metric in METRICS}
    low, high = joint("energy, low"), joint("energy, high")
    shown = (NONE, *(frozenset((name,)) for name in names), frozenset(names))
    judged = dict.fromkeys(subject.changes_results(chosen) for chosen in shown if judge)
    accuracies = {chosen: subject.accuracy(chosen) for chosen in judged}
    return Report(subject, tuple(names), table, counts, costs, joints, (low, high), accuracies)


def _tracked(sets: Sequence[Chosen], step: Step) -> Iterable[Chosen]:
    """The sets, those of equal results one after another."""
    for number, chosen in enumerate(sets):
        step(f"{number + 1} of {len(sets)}: {label(chosen)}")
        yield chosen


def sets_of(report: Report, metric: str) -> tuple[Chosen, ...]:
    """None, each alone and both, of the pair of the largest interaction."""
    pair = report.joints[metric].largest
    both = frozenset((pair.first, pair.second))
    return NONE, frozenset((pair.first,)), frozenset((pair.second,)), both


def explained(report: Report, chosen: Chosen) -> dict[str, float]:
    """The counters of a set, by the names of `COUNTERS`."""
    counts, costs = report.counts[chosen], report.costs[chosen]
    moved, cycles = costs["bytes"].parts, costs["cycles"].parts
    others = sum(moved.values()) - moved["weight"] - moved["commands"]
    return {
        "cycles": counts.cycles,
        **cycles,
        "the bus moves": costs["bytes"].total / counts.config.memory_rate,
        "vector groups": counts.groups,
        "weights": moved["weight"],
        "activations": others,
        "commands": moved["commands"],
    }


def record(report: Report) -> dict[str, Any]:
    """The report as JSON data."""

    def of(value: str) -> dict[str, float]:
        return {metric: getattr(joint, value) for metric, joint in report.joints.items()}

    pairs = []
    for number, pair in enumerate(report.joints[METRICS[0]].pairs):
        entry: dict[str, Any] = {"first": pair.first, "second": pair.second}
        for metric, joint in report.joints.items():
            found = joint.pairs[number]
            entry[metric] = {
                "predicted": found.predicted,
                "measured": found.measured,
                "interaction": found.interaction,
            }
        pairs.append(entry)
    return {
        "model": report.subject.name,
        "work": report.subject.work,
        "of": report.subject.unit,
        "table": report.table.title,
        "unit": report.table.unit,
        "optimisations": {name: OPTIMISATIONS[name] for name in report.names},
        "gains": {metric: dict(joint.gains) for metric, joint in report.joints.items()},
        "predicted_joint": of("predicted"),
        "weighted_sum": of("weighted"),
        "with_pairs": of("with_pairs"),
        "measured_joint": of("measured"),
        "energy_ends": {
            end: {"predicted_joint": joint.predicted, "measured_joint": joint.measured}
            for end, joint in zip(("low", "high"), report.ends, strict=True)
        },
        "pairs": pairs,
        "largest": {
            metric: {
                "pair": [joint.largest.first, joint.largest.second],
                "counters": {label(s): explained(report, s) for s in sets_of(report, metric)},
            }
            for metric, joint in report.joints.items()
        },
        "accuracy": {label(chosen): dict(found) for chosen, found in report.accuracies.items()},
        "sets": [
            {
                "with": sorted(chosen),
                **{metric: cost.total for metric, cost in report.costs[chosen].items()},
                "parts": {metric: asdict(cost)["parts"] for metric, cost in costs.items()},
            }
            for chosen, costs in report.costs.items()
        ],
    }
