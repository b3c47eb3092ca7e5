"""What a recovery leaves: the recovered weights and the curve, as JSON and as a picture."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.export import ExportedProgram

from sim.files import write_atomically
from sw.models import minilm
from sw.recover.checkpoint import Point
from sw.recover.student import Model
from sw.recover.text import PREFIX

__all__ = ["save_curve", "save_minilm", "save_program"]


def save_minilm(student: Model, path: str) -> None:
    """All parameters under the names of the transformers module: `minilm.load_module(path)`."""
    state = dict(minilm.load_module().state_dict())
    for name, parameter in student.parameters.items():
        state[name.removeprefix(PREFIX)] = parameter.detach()
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    write_atomically(path, save(tensors))


def save_program(program: ExportedProgram, student: Model, path: str) -> None:
    """The exported program, which gets the student's parameters, as a .pt2 file."""
    for name, parameter in student.parameters.items():
        program.state_dict[name] = nn.Parameter(parameter.detach())
    file = io.BytesIO()
    torch.export.save(program, file)
    write_atomically(path, file.getvalue())


def save_curve(points: Sequence[Point], path: str, title: str) -> list[Path]:
    """Write `path`.json and, where matplotlib is installed, `path`.png; returns what is written."""
    data = Path(f"{path}.json")
    write_atomically(data, (json.dumps([asdict(p) for p in points], indent=1) + "\n").encode())
    if importlib.util.find_spec("matplotlib") is None:
        return [data]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    x = [p.processor_minutes for p in points]
    axes.plot(x, [p.mean for p in points], color="#0072B2", marker="o", ms=3, label="mean")
    axes.plot(x, [p.minimum for p in points], color="#D55E00", marker="o", ms=3, label="least")
    axes.set_xlabel(f"minutes of one processor core ({points[-1].step:,} steps)")
    axes.set_ylabel("cosine to the original, held out")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    picture = Path(f"{path}.png")
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    write_atomically(picture, file.getvalue())
    return [data, picture]
