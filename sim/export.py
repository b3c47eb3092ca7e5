"""From an accelerator to one Verilog file, always the same bytes for the same sources.

Ports are named `clk`, `rst`, `m_axi_<signal>`, `s_axil_<signal>`, `interrupt` and `trace_*`:
the path of a signature's member joined by one underscore, as IP integration tools expect.

Yosys names some internal signals in the order in which Python iterates over sets, so conversion
runs in an interpreter with a fixed hash seed. It takes seconds; `to_verilog` keeps the
result by the content of the sources it came from.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw.cells.technology import Technology, technology_of
from hw.config import AcceleratorConfig
from sim import simulated
from sim.cache import kept
from sim.simulated import fast_to_simulate

__all__ = ["TOP", "ExportError", "component_verilog", "exported", "to_verilog"]

TOP = "weft"
"""Name of the top module."""

Progress = Callable[[str, int, int], None]

_FIRST_VALUE = re.compile(r"^  reg (\\\$auto\$verilog_backend\S+ ) = 0;$", re.M)

_ROOT = Path(__file__).resolve().parent.parent

SIMULATED = (_ROOT / "hw/systolic/array.sv", _ROOT / "hw/cells/clock_gate.sv")
"""Modules that components instantiate with `Technology.SIMULATION`."""


class ExportError(RuntimeError):
    """The accelerator could not be converted; the text has the end of the traceback."""


def component_verilog(component: Any, name: str = TOP, platform: Any = None) -> str:
    """Verilog of a `wiring.Component` with single underscores in its port names.

    platform: a `Technology`, or what else Amaranth hands to `elaborate`.
    """
    # Here, as most who import this module only want what is in the cache.
    import amaranth
    from amaranth.back import verilog
    from amaranth.hdl import ValueCastable
    from amaranth.lib import wiring

    ports = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        direction = amaranth.hdl._ir.PortDirection  # the type `convert` asks for
        ports["_".join(str(part) for part in path)] = (
            value,
            direction.Input if member.flow == wiring.In else direction.Output,
        )
    text = verilog.convert(component, name=name, platform=platform, ports=ports, emit_src=False)
    text = _starting_at_time_0(text)
    if technology_of(platform) is Technology.SIMULATION:
        text = fast_to_simulate(text)
        text += "".join("\n" + path.read_text() for path in SIMULATED)
    return text


def _starting_at_time_0(text: str) -> str:
    """Verilog whose combinational blocks run at time 0, under the rules of SystemVerilog too.

    Each `always @*` of Yosys' reads a register whose first value shall start it. In SystemVerilog
    a declared value is there before any block waits for a change: a block whose inputs keep
    theirs would never run. What is assigned without blocking comes when all of them wait.
    """
    return _FIRST_VALUE.sub(r"  reg \1;\n  initial \1 <= 0;", text)


def to_verilog(
    config: AcceleratorConfig,
    progress: Progress | None = None,
    technology: Technology = Technology.PORTABLE,
) -> str:
    """Verilog of `Accelerator(config)`, with the cells of a technology; see `exported`."""
    try:
        return exported("sim.export:_accelerator", config.hardware(), ["hw"], progress, technology)
    except ExportError as error:
        raise ExportError(f"configuration {config.name!r}: {error}") from None


def exported(
    factory: str,
    arguments: dict[str, Any],
    folders: list[str],
    progress: Progress | None = None,
    technology: Technology = Technology.PORTABLE,
) -> str:
    """Verilog of the component that `factory` ("module:function") makes of the arguments, from
    the cache where the sources have not changed.

    arguments: what JSON can hold. folders: with the sources that it depends on. progress: called
    with (text, steps done, steps) if it takes time. Raises `ExportError`.
    """
    call = json.dumps([factory, arguments, technology.value], sort_keys=True)

    def make(_work: Path) -> bytes:
        if progress is not None:
            progress("Converting to Verilog", 0, 1)
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
        command = [sys.executable, "-m", "sim.export", call]
        result = subprocess.run(command, env=environment, capture_output=True, check=False)
        if result.returncode:
            tail = "\n".join(result.stderr.decode(errors="replace").splitlines()[-15:])
            raise ExportError(f"the conversion to Verilog failed:\n{tail}")
        return result.stdout

    return kept("verilog", f"{_source_hash(folders, call)}.v", make).read_text()


def _source_hash(folders: list[str], call: str) -> str:
    digest = hashlib.sha256(importlib.metadata.version("amaranth").encode())
    sources = [path for folder in folders for path in sorted((_ROOT / folder).rglob("*.py"))]
    for path in [*sources, *SIMULATED, Path(simulated.__file__), Path(__file__)]:
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    digest.update(call.encode())
    return digest.hexdigest()[:32]


def _accelerator(**fields: Any) -> Any:
    from hw.accelerator import Accelerator

    return Accelerator(AcceleratorConfig(**fields))


def _main() -> None:
    factory, arguments, technology = json.loads(sys.argv[1])
    module, _, function = factory.partition(":")
    component = getattr(importlib.import_module(module), function)(**arguments)
    sys.stdout.write(component_verilog(component, platform=Technology(technology)))


if __name__ == "__main__":
    _main()
