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
_OUTPUT = "&read model.aig; &cone -O %d -R 1; &put;"
"""Goes on with one output alone."""
_FAILED = re.compile(r"was asserted in frame (\d+)")
_COMBINATIONAL = "The network is combinational"
"""No register matters, so there is nothing beyond the first cycle."""
_ANSWER = re.compile(rf"Networks are \w+|{_COMBINATIONAL}")
_INDUCTIVE = ("Networks are equivalent", _COMBINATIONAL)


class EngineError(RuntimeError):
    """An engine is missing, failed, or gave no answer in its time; the text says which."""


@dataclass(frozen=True)
class Circuit:
    """A model as an AIGER file. Its first output is 1 where a property fails."""

    path: Path

    @classmethod
    def of(cls, rtlil: str, folder: Path) -> Circuit:
        """Writes `model.aig` into a folder. Raises `boards.yosys.SynthesisError`."""
        (folder / "model.il").write_text(rtlil)
        run_yosys(_SCRIPT, folder)
        return cls(folder / "model.aig")

    def first_failure(self, frames: int, seconds: int) -> int | None:
        """The first of so many cycles from the start in which a property fails, or None."""
        text = self._abc(f"{_OUTPUT % 0} bmc3 -F {frames} -T {seconds}")
        if found := _FAILED.search(text):
            return int(found[1])
        if f"No output asserted in {frames} frames" in text or _COMBINATIONAL in text:
            return None
        raise EngineError(f"no answer about {frames} cycles in {seconds} s")

    def not_inductive(self, count: int, steps: int, seconds: int) -> list[int]:
        """Those of `count` properties that may fail though all held for `steps` cycles, from any
        state. The outputs behind the first one are theirs."""
        command = f"ind -F {steps + 1} -T {seconds}"
        text = self._abc(" ".join(f"{_OUTPUT % (1 + k)} {command};" for k in range(count)))
        answers = _ANSWER.findall(text)
        if len(answers) != count:
            raise EngineError(f"{len(answers)} answers of ABC about {count} properties")
        return [k for k, answer in enumerate(answers) if answer not in _INDUCTIVE]

    def is_invariant(self, seconds: int) -> bool:
        """Whether property directed reachability finds out that all hold in every state."""
        return "Property proved" in self._abc(f"{_OUTPUT % 0} pdr -T {seconds}")

    def _abc(self, command: str) -> str:
        if (spec := importlib.util.find_spec("pyosys")) is None or spec.origin is None:
            raise EngineError("Yosys is missing: pip install pyosys==0.70 (or `make setup`)")
        tool = Path(spec.origin).parent / "yosys-abc"
        result = subprocess.run(
            [tool, "-c", command],
            cwd=self.path.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise EngineError(f"ABC failed: {result.stdout[-200:]}{result.stderr[-200:]}")
        return result.stdout
