"""From a model to an answer: Yosys makes an AIGER circuit of it, ABC proves or refutes outputs.

Both come with the package `pyosys`, which `weft build` and `weft synth` run too.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from boards.yosys import run_yosys

__all__ = ["Circuit", "EngineError"]

_SCRIPT = (
    "read_rtlil model.il",
    "hierarchy -top top",
    "proc",
    "flatten",
    "opt_clean",
    "memory -nordff",
    "opt -fast",
    "setundef -undriven -anyseq",
    "techmap",
    "dffunmap",
    "aigmap",
    "write_aiger -zinit model.aig",
)
_FAILED = re.compile(r"was asserted in frame (\d+)")


class EngineError(RuntimeError):
    """An engine is missing, failed, or gave no answer in its time; the text says which."""


@dataclass(frozen=True)
class Circuit:
    """A model as an AIGER file with one output, `fails`."""

    path: Path

    @classmethod
    def of(cls, rtlil: str, folder: Path) -> Circuit:
        """Writes `model.aig` into a folder. Raises `boards.yosys.SynthesisError`."""
        (folder / "model.il").write_text(rtlil)
        run_yosys(_SCRIPT, folder)
        return cls(folder / "model.aig")

    def first_failure(self, frames: int, seconds: int) -> int | None:
        """The first of so many cycles from the start in which a property fails, or None."""
        text = self._abc(f"bmc3 -F {frames} -T {seconds}")
        if found := _FAILED.search(text):
            return int(found[1])
        if f"No output asserted in {frames} frames" in text:
            return None
        raise EngineError(f"no answer about {frames} cycles in {seconds} s")

    def is_inductive(self, steps: int, seconds: int) -> bool:
        """Whether properties that held for so many cycles hold in the next, from any state."""
        text = self._abc(f"ind -F {steps + 1} -T {seconds}")
        # Without a register that matters there is nothing beyond the first cycle.
        return "are equivalent" in text or "The network is combinational" in text

    def is_invariant(self, seconds: int) -> bool:
        """Whether property directed reachability finds out that they hold in all states."""
        return "Property proved" in self._abc(f"pdr -T {seconds}")

    def _abc(self, command: str) -> str:
        if (spec := importlib.util.find_spec("pyosys")) is None or spec.origin is None:
            raise EngineError("Yosys is missing: pip install pyosys==0.70 (or `make setup`)")
        tool = Path(spec.origin).parent / "yosys-abc"
        result = subprocess.run(
            [tool, "-c", f"read_aiger {self.path.name}; strash; {command}"],
            cwd=self.path.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise EngineError(f"ABC failed: {result.stdout[-200:]}{result.stderr[-200:]}")
        return result.stdout
