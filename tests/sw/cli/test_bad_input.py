"""What a user can get wrong: one clear line, an exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sim import compiler
from sw.compiler import compile_module
from sw.compiler.program.program import Program

MODELS = """
import torch
from torch import nn

class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())

    def forward(self, x):
        return self.body(x)

def x(value=1.0):
    return (value * torch.arange(1.0, 19.0).reshape(1, 3, 6),)

def unsupported():
    return Unsupported(), x()

def nan_weight():
    module = nn.Linear(6, 6)
    module.weight.data[2, 3] = float("nan")
    return module, x()

def infinite_calibration():
    return nn.Linear(6, 6), x(), [x(), x(float("inf"))]

def empty_calibration():
    return nn.Linear(6, 6), x(), []

def wrong_shape():
    return nn.Linear(6, 6), (torch.ones(1, 3, 7),)

def wrong_rank():
    return nn.Linear(6, 6), (torch.ones(2, 2, 2, 3, 6),)

def picture_without_convolution():
    return nn.Linear(6, 6), (torch.ones(2, 2, 3, 6),)

def wrong_dtype():
    return nn.Linear(6, 6), (torch.ones(1, 3, 6, dtype=torch.int64),)

def wrong_calibration():
    return nn.Linear(6, 6), x(), [(torch.ones(1, 3, 5),)]

def too_wide():
    return nn.Linear(6, 20000), x()

def not_a_pair():
    return nn.Linear(6, 6)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "models.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.weft"
    compile_module(torch.nn.Linear(6, 6), (torch.randn(1, 3, 6),), "tiny").save(path)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unsupported", "unsupported operation aten.sigmoid.default at body.1 (Sigmoid)"),
        ("nan_weight", "parameter 'weight' holds NaN or infinity"),
        ("infinite_calibration", "calibration batch 1, input 'input' holds NaN or infinity"),
        ("empty_calibration", "calibration is empty: give at least one batch"),
        ("wrong_shape", "torch.export refuses Linear: "),
        ("wrong_rank", "has shape (2, 2, 2, 3, 6); float inputs are [tokens, features], "),
        ("picture_without_convolution", "only a convolution reads a picture"),
        (
            "wrong_dtype",
            "no output of the module depends on activations",
        ),
        ("wrong_calibration", "calibration input 'input' has 5 features, not 6"),
        ("too_wide", "20000 features are more than commands can address with 2 lanes"),
        ("not_a_pair", "must return (module, example_inputs) or"),
        ("missing", "has no function missing"),
    ],
)
def test_modules(weft, models, tmp_path, name, text):
    file = tmp_path / "out.weft"
    outcome = weft("compile", f"{models}:{name}", "-o", file, "--config", "tiny")
    assert outcome.code == 1 and text in outcome.error()
    assert not file.exists()


def test_models_that_are_not_there(weft, tmp_path):
    to = ("-o", tmp_path / "x.weft")
    assert "unknown model 'resnet'" in weft("compile", "resnet", *to).error()
    assert "model file nowhere.py does not exist" in weft("compile", "nowhere.py:f", *to).error()
    assert "model file nowhere.pt2 does not" in weft("compile", "nowhere.pt2", *to).error()
    assert "cannot import no.such" in weft("compile", "no.such:f", *to).error()
    (tmp_path / "bad.pt2").write_bytes(b"not a zip file")
    assert (
        "was not saved by torch.export.save" in weft("compile", tmp_path / "bad.pt2", *to).error()
    )
    text = weft("compile", "all-MiniLM-L6-v2", "--tokens", 513, *to).error()
    assert text == "--tokens '513': give one or more of 1 to 512, as in 9,31,16"


def test_configurations_and_devices(weft, program, tmp_path):
    text = weft("export", "--config", "huge", "-o", tmp_path / "x.v").error()
    assert text == "unknown configuration 'huge'; presets: tiny, ulx3s, base; or a FILE.json"
    assert "unknown configuration" in weft("embed", "x", "--config", "huge").error()
    unknown = "unknown device 'gpu'; known: board:PORT, golden, verilator"
    assert weft("run", program, "--device", "gpu").error() == unknown
    assert weft("embed", "x", "--device", "gpu").error() == unknown
    bench = ("bench", "gemm", "--config", "tiny", "--shape")
    for shape in ("3x4", "0x4x4", "axbxc"):
        assert f"shape {shape!r}: give MxKxN" in weft(*bench, shape).error()
    for tokens in ("0", "513", "9,", "9;3", "-1"):
        error = weft("bench", "minilm", f"--tokens={tokens}").error()
        assert error == f"--tokens {tokens!r}: give one or more of 1 to 512, as in 9,31,16"
    text = weft(*bench, "4x4x4", "--memory-latency", 0).error()
    assert "memory_latency must be at least 1" in text


def test_inputs_of_a_program(weft, program, tmp_path):
    def run(*arrays, device: str = "golden") -> str:
        arguments = []
        for number, array in enumerate(arrays):
            np.save(tmp_path / f"{number}.npy", array)
            arguments += ["--input", tmp_path / f"{number}.npy"]
        return weft("run", program, "--device", device, *arguments).error()

    good = np.ones((1, 3, 6), np.float32)
    assert run() == "1 inputs are needed (input), got 0"
    assert run(good, good) == "1 inputs are needed (input), got 2"
    assert run(good[:, :2]) == "input 'input' has shape (1, 2, 6), not (1, 3, 6)"
    assert run(good.astype(complex)) == "input 'input' (float) cannot be complex128"
    assert run(good * np.nan) == "input 'input' holds NaN or infinity"
    assert run(good * np.inf, device="verilator") == "input 'input' holds NaN or infinity"
    text = weft("run", program, "--input", "nowhere.npy").error()
    assert text == "input nowhere.npy: No such file or directory"
    text = weft("run", program, "--input", program).error()
    assert "is not a .npy or .npz file of numbers" in text
    outputs = ("--output", tmp_path / "a.npy", "--output", tmp_path / "b.npy")
    text = weft("run", program, "--input", tmp_path / "0.npy", *outputs).error()
    assert text == "the program has 1 outputs, 2 --output given"


@pytest.mark.parametrize("command", ["run", "disassemble", "inspect"])
def test_program_files(weft, program, tmp_path, command):
    bad = tmp_path / "bad.weft"
    data = program.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    assert f"{bad} is damaged or no program file" in weft(command, bad).error()
    bad.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    assert "is damaged: its contents do not match its SHA-256" in weft(command, bad).error()
    bad.write_bytes(b"")
    assert "is damaged or no program file" in weft(command, bad).error()
    assert weft(command, "nowhere.weft").error() == "No such file or directory: nowhere.weft"
    assert "no program file" in weft(command, tmp_path).error()


def test_a_program_for_another_machine(program, tmp_path):
    from sw.driver import ConfigMismatchError, open_device

    with open_device("golden", "base") as device:
        with pytest.raises(ConfigMismatchError, match=r"'tiny', the machine is 'base' \(rows 4"):
            device.load(Program.load(program))


def test_texts(weft, tmp_path):
    assert "no text: give one or more texts" in weft("embed").error()
    assert weft("embed", "good", " ").error() == "text 2 is empty"
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("\n  \n")
    binary.write_bytes(b"\xff\xfe\x00")
    assert weft("embed", "--file", empty).error() == f"text file {empty} is empty"
    assert f"text file {binary} is not UTF-8" in weft("embed", "--file", binary).error()
    assert "nowhere.txt: No such file" in weft("embed", "--file", "nowhere.txt").error()
    text = weft("embed", "short", "word " * 511, "--device", "golden").error()
    assert text.startswith("the text 'word word") and "has 513 tokens, the model takes" in text


def test_outputs_that_cannot_be_written(weft, models, tmp_path, monkeypatch):
    """Refused before the work, not after it."""
    lost = tmp_path / "no folder" / "out"
    for arguments in (
        ("compile", f"{models}:unsupported", "-o"),
        ("run", "nowhere.weft", "--output"),
        ("export", "--config", "tiny", "-o"),
        ("embed", "x", "--json"),
        ("inspect", "nowhere.weft", "--json"),
        *(
            ("bench", "gemm", "--shape", "4x4x4", option)
            for option in ("--json", "--trace", "--vcd")
        ),
    ):
        assert f"cannot write {lost}: there is no folder" in weft(*arguments, lost).error()
        assert f"cannot write {tmp_path}: it is a folder" in weft(*arguments, tmp_path).error()
    monkeypatch.setattr("sw.cli.common.os.access", lambda *_: False)
    text = weft("export", "--config", "tiny", "-o", tmp_path / "x.v").error()
    assert "x.v: no permission" in text


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-3", "1e999", "fast"])
def test_numbers_that_are_none(weft, tmp_path, value):
    """Every option that takes a number with a fraction."""
    for *arguments, option in (
        ("build", "ulx3s", "--mhz"),
        ("synth", "ulx3s", "--mhz"),
        ("bench", "board", "ulx3s", "--mhz"),
        ("recover", "all-MiniLM-L6-v2", "-o", tmp_path / "x.safetensors", "--minutes"),
        ("recover", "all-MiniLM-L6-v2", "-o", tmp_path / "x.safetensors", "--rate"),
        ("tune", "all-MiniLM-L6-v2", "--accuracy"),
    ):
        text = weft(*arguments, option, value).error()
        assert option in text, text
        assert any(part in text for part in ("x>0", "above 0", "between 0 and 1", "valid float"))


def test_names_of_exported_files(weft, tmp_path):
    text = weft("export", "--config", "tiny", "-o", tmp_path / "x.json").error()
    assert text.endswith("x.json: give a name that ends in .v")
    (tmp_path / "x.md").mkdir()
    text = weft("export", "--config", "tiny", "-o", tmp_path / "x.v").error()
    assert text.endswith("x.md: it is a folder")


def test_no_compiler(weft, program, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((1, 3, 6), np.float32))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiler, "_probe", compiler._probe.__wrapped__)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    text = weft("run", program, "--input", tmp_path / "x.npy").error()
    assert text.startswith("no C++ compiler found") and "pip install ziglang" in text
    monkeypatch.setenv("CXX", "my-compiler")
    assert "'my-compiler' does not run" in weft("bench", "gemm", "--shape", "4x4x4").error()


def test_a_warning_is_one_line(tmp_path):
    """In a process of its own: pytest keeps warnings for itself."""
    model = tmp_path / "alike.py"
    model.write_text(
        "import torch\ndef make(): return torch.nn.Linear(6, 6), (torch.ones(1, 3, 6),)\n"
    )
    command = [sys.executable, "-m", "sw.cli.main", "compile", f"{model}:make", "--config", "tiny"]
    found = subprocess.run(
        [*command, "-o", str(tmp_path / "x.weft")], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in found.stderr.splitlines() if "warning" in line.lower()]
    assert line.startswith("warning: the calibration data has 3 rows, all alike")


def test_prompts_of_a_sequence(weft):
    """Before the model is quantised or anything is built."""
    sequence = ("bench", "smollm2", "--prompt")
    assert weft(*sequence, " ").error() == "the prompt is empty"
    text = weft(*sequence, "word " * 2100).error()
    assert text == (
        "the prompt has 2102 tokens: with --tokens 4 they are more than the 2048 of the context"
    )
