"""The exported accelerator in a system of plain Verilog: docs/integration.md walks through it.

    .venv/bin/python examples/integration/run.py [FOLDER]

Exports configuration `tiny`, compiles a small module for it, writes the memory image and the
register writes that a host would make, runs the system in Icarus Verilog and compares its memory,
byte by byte, with the golden model's. Files go to FOLDER, `build/integration` by default.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hw.isa import Region
from sw.cli.export import export
from sw.compiler import compile_module
from sw.compiler.program.program import Program
from sw.driver import open_device

CONFIG = "tiny"
HERE = Path(__file__).resolve().parent
SOURCES = [HERE / name for name in ("testbench.v", "system.v", "ram.v", "host.v")]
WORD = "<u4"  # of the bus and so of the memory
MEMORY_BYTES = 65536  # 4 * WORDS of ram.v
ENTRIES = 32  # of the list in host.v
ALIGNMENT = 4096


class Small(nn.Module):
    """The part of a transformer block behind attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.norm = nn.Linear(10, 18), nn.Linear(18, 10), nn.LayerNorm(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.down(nn.functional.gelu(self.up(x))))


def compile_small() -> tuple[Program, np.ndarray]:
    """A program, and the bytes of its IO region for one input."""
    generator = torch.Generator().manual_seed(1)
    x, *batches = (torch.randn(1, 5, 10, generator=generator) for _ in range(5))
    program = compile_module(Small(), (x,), CONFIG, [(batch,) for batch in batches])
    return program, program.prepare_inputs(x)


def place(program: Program, io: np.ndarray) -> tuple[np.ndarray, dict[str, slice]]:
    """The memory before the start, and where each region lies in it."""
    contents = {
        "PROGRAM": program.commands,
        "CONSTANT": program.constants,
        "WORKSPACE": np.zeros(program.workspace_bytes, np.uint8),
        "IO": io,
    }
    memory = np.zeros(MEMORY_BYTES, np.uint8)
    places, base = {}, 0
    for name, data in contents.items():
        places[name] = slice(base, base + len(data))
        memory[places[name]] = data
        base += -(-len(data) // ALIGNMENT) * ALIGNMENT
    return memory, places


def register_writes(
    description: dict[str, Any], program: Program, places: dict[str, slice]
) -> list[tuple[int, int]]:
    """(address, value) of what a host writes, in order; the last pair is for `host.v`."""
    if program.fingerprint != description["fingerprint"]:
        raise SystemExit("the program was compiled for another configuration than the exported one")
    registers = {name: item["address"] for name, item in description["registers"].items()}
    writes = []
    for name, place in places.items():
        region = description["regions"][name]
        writes += [
            (region["base"], place.start),
            (region["base_high"], 0),
            (region["size"], place.stop - place.start),
            (region["writable"], int(name in ("WORKSPACE", "IO"))),
        ]
    commands = len(program.commands) // description["command_bytes"]
    writes += [
        (registers["PROGRAM_COMMANDS"], commands),
        (registers["INTERRUPT_ENABLE"], 1),
        (registers["CONTROL"], 1),  # start
        (0xFFFFFFFF, registers["STATUS"]),  # wait for the interrupt, then read this
    ]
    return writes


def write_hex(path: Path, words: list[str]) -> None:
    """A file for $readmemh."""
    path.write_text("\n".join(words) + "\n")


def read_hex(path: Path) -> np.ndarray:
    """The bytes of a file by $writememh."""
    lines = path.read_text().splitlines()
    words = [int(line, 16) for line in lines if not line.startswith("//")]
    return np.array(words, WORD).view(np.uint8)


def simulate(folder: Path, verilog: Path, standard: str = "2012") -> np.ndarray:
    """Run the system: the bytes of its memory when the program has ended.

    standard: year of the language, 2005 for Verilog, 2012 for SystemVerilog.
    """
    if shutil.which("iverilog") is None:
        raise SystemExit("Icarus Verilog (iverilog) is missing: run scripts/setup-tools icarus")
    build = ["iverilog", f"-g{standard}", "-o", "system.vvp", *map(str, SOURCES), verilog.name]
    subprocess.run(build, cwd=folder, check=True)
    result = folder / "result.hex"
    result.unlink(missing_ok=True)
    subprocess.run(["vvp", "-n", "system.vvp"], cwd=folder, check=True)
    if not result.exists():
        raise SystemExit("the program did not end")
    return read_hex(result)


def golden(program: Program, io: np.ndarray) -> dict[str, np.ndarray]:
    """Contents of the writable regions after the golden model has run the program."""
    with open_device("golden", config=CONFIG) as device:
        device.load(program).run_io(io)
        sizes = {Region.WORKSPACE: program.workspace_bytes, Region.IO: program.io_bytes}
        return {region.name: device.read(region, 0, size) for region, size in sizes.items()}


def compare(result: np.ndarray, expected: np.ndarray) -> None:
    """Raises `SystemExit` if a byte differs."""
    wrong = np.flatnonzero(result != expected)
    if len(wrong):
        raise SystemExit(
            f"{len(wrong)} bytes differ from the golden model, the first at {wrong[0]}"
        )
    print(f"{len(result):,} bytes of memory equal to the golden model's")


def main(folder: Path) -> None:
    """Everything in order. Raises `SystemExit` if a step fails or a byte differs."""
    folder.mkdir(parents=True, exist_ok=True)
    verilog = folder / f"weft_{CONFIG}.v"
    export.main(["--config", CONFIG, "-o", str(verilog)], standalone_mode=False)
    description = json.loads(verilog.with_suffix(".json").read_text())

    program, io = compile_small()
    memory, places = place(program, io)
    write_hex(folder / "memory.hex", [f"{word:08x}" for word in memory.view(WORD)])
    writes = register_writes(description, program, places)
    writes += [(0, 0)] * (ENTRIES - len(writes))
    write_hex(folder / "registers.hex", [f"{address:08x}{value:08x}" for address, value in writes])

    result = simulate(folder, verilog)
    expected = memory.copy()
    for name, data in golden(program, io).items():
        expected[places[name]] = data
    compare(result, expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build/integration"))
