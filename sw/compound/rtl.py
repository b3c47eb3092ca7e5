"""Sets of optimisations on the RTL: cycles, where they went, every byte against golden."""

from __future__ import annotations

from typing import Any

from sw.bench.cases import random_inputs
from sw.bench.measure import Step, measure_program, silent
from sw.compiler.errors import CompileError
from sw.compound.gains import NONE
from sw.compound.minilm import MiniLM
from sw.compound.report import Report, label, sets_of

__all__ = ["measure_rtl"]


def measure_rtl(report: Report, step: Step = silent) -> list[dict[str, Any]]:
    """None, each alone, the pair whose cycles interact most, and all, in this order.

    Raises `CompileError` if the RTL and the golden model differ in a byte.
    """
    assert isinstance(report.subject, MiniLM)
    alone = (frozenset((name,)) for name in report.names)
    found = []
    for chosen in dict.fromkeys((NONE, *alone, sets_of(report, "cycles")[-1], report.all)):
        program = report.subject.program(chosen)
        result = measure_program(
            program,
            random_inputs(program.graph),
            activity=program.config.sleep,
            memory_width=program.config.memory_rate,
            step=lambda text, chosen=chosen: step(f"{label(chosen)}: {text}"),
        )
        if not result["bit_exact"]:
            raise CompileError(f"{label(chosen)}: the RTL is not equal to the golden model")
        found.append({"set": label(chosen), "with": sorted(chosen), **result})
    return found
