"""The accelerator as Yosys' netlist of ECP5 cells, behind the same C interface as the RTL's model.

    built = built_model(synthesised_accelerator(config))
    open_device("verilator", config, built=built)

runs programs on it, some thousand cycles a second, without minutes of C++ compilation:
sim/netlist.cpp reads the cells from tables.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards.family import ECP5
from boards.synthesis import ACCELERATOR, KEEP, flat_script
from boards.yosys import run_yosys
from hw.config import AcceleratorConfig
from sim.cache import kept
from sim.compiler import find_compiler
from sim.export import TOP, to_verilog
from sim.netlist_cells import Netlist
from sim.verilator import BuiltModel, Progress, bus_bytes, check_command, ports_header, trace_ports

__all__ = ["built_model", "netlist_library", "synthesised", "synthesised_accelerator"]

_SIM = Path(__file__).resolve().parent
_CXX_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-w", "-DVM_TRACE=0")
_SYNTH = f"{ECP5.command} -top {TOP} -run"
_WRITE = (f"select {TOP}", "write_json -selected netlist.json")
_SCRIPT = (
    "read_verilog -sv design.v",
    "proc",
    KEEP,
    f"{_SYNTH} begin:map_luts",
    "rename -hide w:*",  # see boards/synthesis.py
    f"{_SYNTH} map_luts:check",
    *_WRITE,
)


def synthesised(
    text: str, progress: Progress | None = None, script: Sequence[str] = _SCRIPT
) -> dict[str, Any]:
    """The netlist of Verilog `text` as Yosys writes it in JSON: its top module, flat.

    script: from design.v to netlist.json. Minutes, unless it is in the cache. Raises
    `boards.yosys.SynthesisError`.
    """
    version = importlib.metadata.version("pyosys")
    key = hashlib.sha256("\0".join((text, version, *script)).encode()).hexdigest()[:32]

    def make(work: Path) -> bytes:
        (work / ACCELERATOR.file).write_text(text)
        run_yosys(script, work, progress)
        return (work / "netlist.json").read_bytes()

    return json.loads(kept("netlist", f"{key}.json", make).read_bytes())["modules"][TOP]


def synthesised_accelerator(
    config: AcceleratorConfig, progress: Progress | None = None, *, units: bool = False
) -> Netlist:
    """The netlist of an accelerator; minutes, unless it is in the cache. units: whose units keep
    their borders, so that `boards.synthesis.unit_of_cell` knows each cell's.

    Raises `sim.export.ExportError`, `boards.yosys.SynthesisError`,
    `sim.netlist_cells.NetlistError`.
    """
    text = to_verilog(config, progress, ECP5.technology)
    script = (*flat_script(text), *_WRITE) if units else _SCRIPT
    return Netlist.of(synthesised(text, progress, script))


def built_model(netlist: Netlist, toggles: NDArray[np.uint32] | None = None) -> BuiltModel:
    """A model of any netlist with an accelerator's ports.

    toggles: [nets], where the model adds how often each net changed from a cycle to the next, until
    another one of a netlist with the same ports is opened.
    """
    ports = {n: len(nets) * (-1 if i else 1) for n, (i, nets) in netlist.ports.items()}
    library, seconds = netlist_library(netlist, "model.cpp", ports_header(ports))
    words = netlist.words()

    def load(opened: ctypes.CDLL) -> None:
        opened.netlist_load.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        opened.netlist_load(words.ctypes.data, words.size)
        opened.netlist_count.argtypes = [ctypes.c_void_p]
        opened.netlist_count(None if toggles is None else toggles.ctypes.data)

    return BuiltModel(
        library=library,
        bus_bytes=bus_bytes(ports),
        traces=trace_ports(ports),
        vcd=False,
        build_seconds=seconds,
        prepare=load,
    )


def netlist_library(netlist: Netlist, harness: str, header: str) -> tuple[Path, float]:
    """`sim.verilator.build_library` for netlists with these ports: seconds, once.

    The tables are not in the library: call its `netlist_load` before it makes a model.
    """
    sources = {
        "ports.h": header,
        "Vweft.h": _vweft(netlist),
        "verilated.h": "#pragma once\nstruct VerilatedContext { void traceEverOn(bool) {} };\n",
        "netlist.h": (_SIM / "netlist.cpp").read_text(),
        "harness.cpp": (_SIM / harness).read_text(),
    }
    tool = find_compiler()
    parts = (*sources.values(), tool.version, *_CXX_FLAGS)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    seconds = 0.0

    def make(work: Path) -> bytes:
        nonlocal seconds
        begin = time.monotonic()
        for file, text in sources.items():
            (work / file).write_text(text)
        command = [*tool.command, *_CXX_FLAGS, "-I.", "-shared", "harness.cpp"]
        check_command([*command, "-o", "model.so"], work)
        seconds = time.monotonic() - begin
        return (work / "model.so").read_bytes()

    return kept("netlist", f"{key}.so", make), seconds


def _vweft(netlist: Netlist) -> str:
    """The class that sim/model.cpp drives, as Verilator would make it for the wrapper around the
    accelerator: inputs are taken at the edge, the logic sees them from then on."""
    fields, puts, gets = [], [], []
    for name, (is_input, nets) in netlist.ports.items():
        width = len(nets)
        size = next((s for s in (8, 16, 32, 64) if width <= s), 0)
        kind, dimension = (f"uint{size}_t", "") if size else ("uint8_t", f"[{-(-width // 8)}]")
        fields.append(f"    {kind} {name}{dimension} = {{}};")
        if name == "clk":
            continue
        fields.append(f"    uint32_t {name}_nets[{width}] = {{{', '.join(map(str, nets))}}};")
        move = f"        netlist.{'put' if is_input else 'get'}(&{name}, {name}_nets, {width});"
        (puts if is_input else gets).append(move)
    lines = [
        "#include <cstdint>",
        '#include "netlist.h"',
        '#include "verilated.h"',
        "struct Vweft {",
        *fields,
        "    Netlist netlist;",
        "    bool was_high = false;",
        "    explicit Vweft(VerilatedContext*) { rst = 1, show(); }",
        "    void final() {}",
        "    void eval() {",
        "        if (clk && !was_high) netlist.edge(), show();",
        "        was_high = clk;",
        "    }",
        "    void show() {",
        *puts,
        "        netlist.settle();",
        *gets,
        "    }",
        "};",
    ]
    return "\n".join(lines) + "\n"
