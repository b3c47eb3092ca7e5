"""Trade accuracy for cycles and bytes: a model's plans, measured in integers, each kept.

Everything that takes minutes is kept in the cache by what it depends on: sensitivities (an
interrupted run goes on where it was) and the quantised graph of every plan that was measured.
"""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat, WeightFormatError
from sim.cache import find, keep, kept, source_digest
from sw.compiler.errors import CalibrationWarning, CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.graph.reference import from_integers, run_reference_rows
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.prune.blocks import Block, Cuts, find_blocks
from sw.compiler.prune.cut import PruneOptions, Survey, cut_graph, shape_only, survey
from sw.compiler.quantise import Progress, QuantOptions, quantise
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.named import sites
from sw.compiler.stream.layout import weight_form
from sw.compiler.tune.assign import Cost, Plan, front, within
from sw.compiler.tune.sensitivity import JUDGED, Judge, row_cosines, sensitivities, split
from sw.compiler.tune.structured import Costs, CutErrors, cut_errors, structured_front

__all__ = ["FORMATS", "Measured", "Subject", "Tuner", "possible_formats"]

FORMATS = tuple(
    WeightFormat.parse(name) for name in ("int8", "int8 x int16", "2:4 int8", "int4/32")
)
"""Formats that a plan may use where nothing else is asked for."""

SOURCES = (
    "sw/compiler/quantise",
    "sw/compiler/graph",
    "sw/compiler/tune/sensitivity.py",
)
_NO_CUTS: Cuts = {}
ESTIMATE_BATCHES = 4
"""Calibration batches with which a program is only laid out."""
SENSITIVITY_BATCHES = 100
"""Calibration batches that sensitivities are taken from, about: they only rank."""


@dataclass(frozen=True)
class Subject:
    """A model to tune.

    Attributes
    ----------
    name: for its files in the cache. graph: in float. calibration: batches of inputs. judge:
        cosines of the first output with that of float. tokens: of the program to write; 0: the
        graph's.
    """

    name: str
    graph: FloatGraph
    calibration: Sequence[object]
    judge: Judge = row_cosines
    tokens: int = 0

    @property
    def rows(self) -> int:
        return self.graph.batch * (self.tokens or self.graph.tokens)

    def digest(self) -> str:
        """Of the model and the calibration data."""
        digest = hashlib.sha256()

        def add(value: object) -> None:
            if isinstance(value, np.ndarray):
                digest.update(value.tobytes())
            elif isinstance(value, tuple):
                for item in value:
                    add(item)
            else:
                digest.update(repr(value).encode())

        for op in self.graph.ops:
            for item in fields(op):
                add(getattr(op, item.name))
        feeds, rows = calibration_rows(self.graph, self.calibration)
        add((rows.lengths, *feeds.values()))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Measured:
    """A plan with its cosines to float on batches that nothing was fitted to.

    cycles: of its program, by the compiler's model of the machine.
    """

    plan: Plan
    mean: float
    least: float
    cycles: int


def possible_formats(
    formats: Sequence[WeightFormat],
    config: AcceleratorConfig,
    structured: bool,
    default: Sequence[WeightFormat] = FORMATS,
) -> tuple[WeightFormat, ...]:
    """Formats asked for, or those of `default` that the configuration has; dense is one.

    structured: dense alone will do, because shapes are to be chosen too.
    """

    def refusal(format: WeightFormat) -> str:
        if format.scaled:
            return f"{format.name} is a format of language models: encoders have int4/32"
        try:
            weight_form(config, format)
        except WeightFormatError as error:
            return str(error)
        return ""

    for text in filter(None, map(refusal, formats)):
        raise CompileError(text)
    found = [f for f in formats or default if f != DENSE and not refusal(f)]
    if not found and not structured:
        raise CompileError("int8 is what every linear may have: name another format")
    return (DENSE, *found)


@dataclass
class Tuner:
    """Sensitivities, front and measured plans of one subject on one configuration.

    formats: that a linear may have; by default those of `FORMATS` that the configuration has.
    pruning: how heads and channels are cut, or None where all stay. blocks: where; all by default.
    """

    subject: Subject
    config: AcceleratorConfig
    formats: Sequence[WeightFormat] = ()
    options: QuantOptions = field(default_factory=QuantOptions)
    pruning: PruneOptions | None = None
    blocks: Sequence[Block] | None = None

    def __post_init__(self) -> None:
        self.formats = possible_formats(self.formats, self.config, self.pruning is not None)
        code = source_digest("hw/sparse", "hw/vector", "hw/softmax", *SOURCES)
        name = f"{self.subject.name}-{self.subject.digest()}-{code}-{GRAPH_VERSION}"
        self.folder = f"tuning/{name}"
        self.places = sites(self.subject.graph)
        tokens = self.subject.tokens or self.subject.graph.tokens
        blocks = ()
        if self.pruning is not None:
            blocks = find_blocks(self.subject.graph) if self.blocks is None else self.blocks
            if not blocks:
                raise CompileError(
                    f"{self.subject.name} has no heads or hidden channels to cut: no linear alone "
                    "reads another one through an activation or an attention"
                )
        self.costs = Costs(self.subject.graph, blocks, self.subject.rows, tokens, self.config)

    # --- prediction ---------------------------------------------------------------------------

    def errors(self, progress: Progress | None = None) -> dict[str, dict[WeightFormat, float]]:
        """Error by place and format."""
        file = "sensitivities.json"
        path = find(self.folder, file)
        known = {} if path is None else json.loads(path.read_text())
        batches = self.subject.calibration

        def save(found: dict) -> None:
            keep(self.folder, file, json.dumps(found, indent=1).encode())

        return sensitivities(
            self.subject.graph,
            batches[:: max(1, len(batches) // SENSITIVITY_BATCHES)],
            self.formats,
            judge=self.subject.judge,
            known=known,
            progress=progress,
            save=save,
        )

    @functools.cached_property
    def survey(self) -> Survey:
        """What is cut first, from the batches that do not judge."""
        return survey(self.subject.graph, split(self.subject.calibration)[0], self.pruning)

    def cut_errors(self, progress: Callable[[float], None] = lambda _done: None) -> CutErrors:
        """Error by block and what is left of it. Only with `pruning`."""
        assert self.pruning is not None
        code = source_digest("sw/compiler/prune", "sw/compiler/tune/structured.py")
        how = f"{self.pruning.method} {self.pruning.damping}"
        text = f"{how} {self.config.rows}x{self.config.columns} {code}"
        file = f"cuts-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        path = find(self.folder, file)
        if path is None:
            _, held = split(self.subject.calibration)
            every = max(1, len(held) * JUDGED // SENSITIVITY_BATCHES)
            found = cut_errors(
                self.subject.graph,
                self.survey,
                held[::every],
                self.subject.judge,
                self.config,
                self.pruning,
                progress,
            )
            path = keep(self.folder, file, json.dumps(found, indent=1).encode())
        known = json.loads(path.read_text())
        return {name: {int(n): error for n, error in of.items()} for name, of in known.items()}

    def front(
        self,
        errors: Mapping[str, Mapping[WeightFormat, float]],
        cuts: CutErrors | None = None,
        *,
        by_bytes: bool = False,
        rest: float = 0.0,
    ) -> list[Plan]:
        """Plans from the most accurate to the fewest cycles, or bytes; see `assign.front`.

        16-bit inputs cost cycles but no bytes, so a front of bytes is without them.

        cuts: errors of cuts, which then stand in the same list.
        rest: cycles of what is not a linear or an attention, for the plans' costs.
        """

        if by_bytes:
            errors = {
                place: {f: error for f, error in found.items() if f.inputs == 8}
                for place, found in errors.items()
            }

        def cost(place: str, format: WeightFormat) -> float:
            found = self.cost({place: format}, [place])
            return found.bytes if by_bytes else found.cycles

        if cuts is None:
            others = Cost(rest, 0)
            return front(errors, cost, lambda formats: self.costs.total(formats, {}) + others)
        plans = structured_front(errors, cuts, self.costs, by_bytes=by_bytes)
        return [replace(plan, cost=plan.cost + Cost(rest, 0)) for plan in plans]

    def cost(
        self,
        formats: Mapping[str, WeightFormat],
        places: Iterable[str] | None = None,
        cuts: Cuts = _NO_CUTS,
    ) -> Cost:
        """Predicted cost of the linears at these places, by default of all."""
        return self.costs.total(formats, cuts, set(self.places if places is None else places))

    def rest(self, progress: Progress | None = None) -> float:
        """Predicted cycles of the dense program that are not its linears' and attentions'."""
        program = self.program({}, progress=progress)
        return max(program.estimated_cycles - self.costs.total({}, {}).cycles, 0.0)

    def program(
        self,
        formats: Mapping[str, WeightFormat],
        cuts: Cuts = _NO_CUTS,
        progress: Progress | None = None,
    ) -> Program:
        """The program of a plan."""
        return self._lowered(self.quantised(formats, cuts, progress))

    def _lowered(self, graph: QuantGraph) -> Program:
        """Cut to the subject's tokens, if it has some: graphs with a host part cannot be cut."""
        if self.subject.tokens:
            graph = with_shape(graph, graph.batch, self.subject.tokens)
        return lower(graph, self.config)

    def estimate(self, cuts: Cuts) -> int:
        """Predicted cycles of the dense program with these cuts, without fitting anything."""
        graph = shape_only(self.subject.graph, self.costs.blocks, cuts)
        quick = QuantOptions(gptq=False, bias_correction=False, alphas=(0.8,), clips=(1.0,))
        with warnings.catch_warnings():  # shapes alone count, not what these batches are like
            warnings.simplefilter("ignore", CalibrationWarning)
            quantised = quantise(graph, self.subject.calibration[:ESTIMATE_BATCHES], quick)
        return self._lowered(quantised).estimated_cycles

    def cuts_within(
        self, cycles: float, progress: Callable[[float], None] = lambda _done: None
    ) -> tuple[Plan, int]:
        """(the best plan of cuts alone, its program's cycles): at most `cycles`, up to 1 a share.

        Raises `CompileError` if no plan is within, saying what the cheapest needs.
        """
        dense = self.estimate({})
        budget = cycles * dense if cycles <= 1 else cycles
        errors = {place: {DENSE: 0.0} for place in self.places}
        rest = dense - self.costs.total({}, {}).cycles
        plans, limit = self.front(errors, self.cut_errors(progress), rest=rest), budget
        while True:  # a program's cycles are not quite those that the front adds up
            plan = plans[within(plans, cycles=limit)]
            found = self.estimate(plan.cuts)
            if found <= budget:
                return plan, found
            limit = plan.cost.cycles - max(found - budget, 1)

    # --- measurement --------------------------------------------------------------------------

    def cut(self, cuts: Cuts) -> FloatGraph:
        """The float graph with these cuts, fitted to the batches that do not judge."""
        if not cuts:
            return self.subject.graph
        fit, _ = split(self.subject.calibration)
        return cut_graph(self.subject.graph, cuts, fit, self.pruning, surveyed=self.survey)

    def quantised(
        self,
        formats: Mapping[str, WeightFormat],
        cuts: Cuts = _NO_CUTS,
        progress: Progress | None = None,
    ) -> QuantGraph:
        """The quantised graph of a plan, fitted to the batches that do not judge."""
        chosen = {place: f for place, f in sorted(formats.items()) if f != DENSE}
        options = replace(self.options, formats=chosen)
        named = {place: format.name for place, format in options.formats.items()}
        text = repr(replace(options, formats={})) + json.dumps(named)
        groups = {block.name: block.groups for block in self.costs.blocks}
        lost = {name: left for name, left in cuts.items() if left < groups[name]}
        if lost:
            text += f"{sorted(lost.items())} {self.pruning} {source_digest('sw/compiler/prune')}"
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"

        def make(_work: Path) -> bytes:
            fit, _ = split(self.subject.calibration)
            return graph_bytes(quantise(self.cut(lost), fit, options, progress))

        return load_graph(kept(self.folder, name, make))

    def measure(self, plan: Plan, progress: Progress | None = None) -> Measured:
        """Cosines of the plan's integers on the batches held out."""
        graph = self.quantised(plan.formats, plan.cuts, progress)
        _, held = split(self.subject.calibration)
        feeds, rows = calibration_rows(self.subject.graph, held)
        name = self.subject.graph.outputs[0][0]
        exact = run_float(self.subject.graph, feeds, rows)[name]
        output = graph.outputs[0].name
        values = run_reference_rows(graph, feeds, rows)
        found = from_integers(values[output], graph.tensors[output])
        cosines = self.subject.judge(found, exact, rows)
        cycles = self.program(plan.formats, plan.cuts).estimated_cycles
        return Measured(plan, float(cosines.mean()), float(np.min(cosines)), cycles)

    @staticmethod
    def within(
        plans: Sequence[Plan], measure: Callable[[Plan], Measured], cycles: float
    ) -> Measured:
        """The most accurate plan whose program keeps to `cycles`. Raises `CompileError`."""
        budget: float = cycles
        while True:
            found = measure(plans[within(plans, cycles=budget)])
            if found.cycles <= cycles:
                return found
            budget = found.plan.cost.cycles - max(found.cycles - cycles, 1)

    @staticmethod
    def search(
        plans: Sequence[Plan],
        accuracy: float,
        measure: Callable[[Plan], Measured],
        most: int = 6,
    ) -> tuple[Measured | None, list[Measured]]:
        """(the cheapest plan measured whose mean cosine is `accuracy` or more, all measured).

        plans: a front, from the most accurate on. measure: called at most `most` times; after each
        time the ratio of measured to predicted error says which plan is tried next, between the
        last good and the first bad one.
        """
        base = measure(plans[0])
        found, best, ratio = [base], base if base.mean >= accuracy else None, 1.0
        good, bad, first = 0, len(plans), plans[0].error
        while best is not None and bad - good > 1 and len(found) < most:
            room = (base.mean - accuracy) / ratio
            aim = max(n for n, plan in enumerate(plans) if n == 0 or plan.error - first <= room)
            number = min(max(aim, good + 1), bad - 1)
            result = measure(plans[number])
            found.append(result)
            predicted = plans[number].error - first
            ratio = max((base.mean - result.mean) / max(predicted, 1e-12), 1e-3)
            if result.mean >= accuracy:
                good, best = number, result
            else:
                bad = number
        return best, found
