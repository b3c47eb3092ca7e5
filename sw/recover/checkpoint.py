"""A training run on disk: weights, masks, optimiser, step and curve in one sealed file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sim.files import write_atomically
from sw.compiler.errors import CompileError
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors, tensor_bytes

__all__ = ["Checkpoint", "Point", "fingerprint"]

FORMAT = "weft-recovery-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Point:
    """A place on the curve. loss: mean since the point before; cosines: on held-out data.

    processor_minutes: of all threads; less than `minutes` where others use the machine.
    """

    minutes: float
    processor_minutes: float
    step: int
    rows: int
    loss: float
    mean: float
    minimum: float


@dataclass
class Checkpoint:
    """Everything a run needs to go on. tensors: `kind/name`, by the names of the parameters.

    epoch, batch: the next batch of the data, which are the same for the same seed.
    """

    model: str
    settings: dict[str, object]
    tensors: dict[str, Tensor]
    seconds: float = 0.0
    processor_seconds: float = 0.0
    step: int = 0
    rows: int = 0
    epoch: int = 0
    batch: int = 0
    curve: list[Point] = field(default_factory=list)

    def part(self, kind: str) -> dict[str, Tensor]:
        """Tensors of one kind: `weight`, `mask`, `first` or `second` (moments of AdamW)."""
        start = f"{kind}/"
        return {n.removeprefix(start): t for n, t in self.tensors.items() if n.startswith(start)}

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced only by a complete one."""
        state = {k: v for k, v in vars(self).items() if k not in ("tensors", "curve")}
        state["curve"] = [asdict(p) for p in self.curve]
        arrays = {name: tensor.detach().numpy() for name, tensor in self.tensors.items()}
        write_atomically(path, tensor_bytes(arrays, state, FORMAT, VERSION))

    @classmethod
    def load(cls, path: Path, model: str, settings: dict[str, object]) -> Checkpoint:
        """Read a run of this model with these settings. Raises `CompileError` if it is not one."""
        try:
            state, arrays = read_tensors(path, FORMAT, VERSION, "give --restart")
        except TensorFileError as error:
            raise CompileError(f"{error}; remove it or give --restart") from None
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if state["model"] != model:
            raise CompileError(
                f"{path} is the checkpoint of another model: remove it, give --restart, or "
                "another --output"
            )
        changed = [k for k, v in settings.items() if state["settings"].get(k) != v]
        if changed:
            raise CompileError(
                f"{path} was made with another {', '.join(changed)}: give the same, or --restart"
            )
        curve = [Point(**p) for p in state.pop("curve")]
        return cls(tensors=tensors, curve=curve, **state)


def fingerprint(parameters: dict[str, Tensor]) -> str:
    """Digest of all parameters by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
