"""The `weft` command as a user runs it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sw.cli.main import main

MODEL = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.norm = nn.Linear(10, 18), nn.Linear(18, 10), nn.LayerNorm(10)

    def forward(self, x):
        return self.norm(x + self.second(torch.relu(self.first(x))))

def x(seed):
    return torch.randn(1, 5, 10, generator=torch.Generator().manual_seed(seed))

def small():
    return Small(), (x(1),), [(x(seed),) for seed in range(2, 6)]
"""


@dataclass
class Outcome:
    """Exit code, and what was printed to standard output and standard error."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line that a failed command ends with."""
        assert self.code != 0, self.out
        assert "Traceback" not in self.err + self.out
        last = self.err.strip().splitlines()[-1]
        assert last.lower().startswith("error: "), self.err
        return last.partition(" ")[2]


Weft = Callable[..., Outcome]


@pytest.fixture
def weft(monkeypatch, capsys) -> Weft:
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        assert isinstance(code, int)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A Python file with a small module: `FILE:small`."""
    path = tmp_path_factory.mktemp("model") / "model.py"
    path.write_text(MODEL)
    return path
