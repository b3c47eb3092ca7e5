"""`weft inspect` on a small program, on screens of several widths."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from hw.config import PRESETS
from sw.bench.cases import Encoder
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler import compile_module
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.joint import JointProgram


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "layers.weft"
    Encoder(16, 2, 32, 12, layers=3).program(PRESETS["tiny"]).save(path)
    return path


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d[\d,.x%]*", text))


@pytest.fixture
def in_a_file(weft, file, monkeypatch) -> str:
    """What the command prints where no screen limits it."""
    monkeypatch.delenv("COLUMNS")
    return weft("inspect", file).out


def test_tables(in_a_file):
    for text in ("tiny (4x4)", "behind the last GEMM", "accumulator", "SOFTMAX"):
        assert text in in_a_file


def test_a_layer_at_a_glance(weft, file, in_a_file):
    """The first layer with its parts, the others in a line each; --all: all of them."""
    for layer in ("layer0", "layer1", "layer2"):
        assert len(re.findall(rf"^{layer} ", in_a_file, re.MULTILINE)) == 1, layer
    parts = re.findall(r"^  (\S+)", in_a_file, re.MULTILINE)
    assert len(parts) == len(set(parts)) > 4 and "attention" in parts
    whole = weft("inspect", file, "--all").out
    assert re.findall(r"^  (\S+)", whole, re.MULTILINE) == 3 * parts


def test_parts_are_in_the_order_of_the_module(weft, tmp_path):
    """Although what a linear needs is loaded before the norm in front of it is at work."""
    path, x = tmp_path / "program.weft", torch.randn(1, 6, 16, generator=torch.Generator())
    module = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))
    compile_module(module, (x,), PRESETS["tiny"], [(x,)]).save(path)
    assert re.findall(r"^(\d) \(\w+\)", weft("inspect", path).out, re.M) == ["0", "1", "3"]


def test_a_layer_is_the_sum_of_its_parts(weft, file, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    sums: dict[str, Counter[str]] = {}
    line = r"^(layer\d)?(?:  \S+)? +(\d+) +([\d,]+) .*%"  # GEMMs, cycles
    for layer, gemms, cycles in re.findall(line, weft("inspect", file, "--all").out, re.MULTILINE):
        found = {"gemms": int(gemms), "cycles": int(cycles.replace(",", ""))}
        if layer:
            rest = sums[layer] = Counter(found)
        else:
            rest.subtract(found)
    assert sorted(sums) == ["layer0", "layer1", "layer2"]
    assert all(rest == {"gemms": 0, "cycles": 0} for rest in sums.values()), sums


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_widths(weft, file, in_a_file, monkeypatch, columns):
    """Nothing is wider than the screen, no number is cut, wrapped or left out, every name is
    there and unlike the others."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = weft("inspect", file).out
    assert max(map(len, shown.splitlines())) <= columns
    assert not numbers(in_a_file) - numbers(shown)
    tables = [part for part in shown.split("\n\n") if "layer0" in part]
    assert len(tables) == {60: 2, 80: 2, 120: 1}[columns]
    for table in tables:
        names = [line[:20].rstrip() for line in table.splitlines()]
        for name in ("layer0", "layer1", "layer2", "  attention", "  ffn.norm", "in all"):
            assert names.count(name) == 1, (name, table)


def test_json(weft, file, tmp_path):
    path = tmp_path / "plan.json"
    outcome = weft("inspect", file, "--json", path)
    assert outcome.code == 0, outcome
    plan = json.loads(path.read_text())
    cycles = sum(stage["cycles"] for stage in plan["stages"])
    assert cycles + plan["cycles_behind_last_gemm"] == plan["predicted_cycles"]
    busy = sum(stage["busy"] for stage in plan["stages"]) / plan["predicted_cycles"]
    assert re.search(rf"^in all .* 100.0% +{busy:.1%} ", outcome.out, re.M), busy
    assert {"m", "k", "n", "gemms"} == set(plan["stages"][0]["tiles"][0])
    assert 0 < plan["onchip_bytes_in_use"] <= PRESETS["tiny"].onchip_bytes
    names = {memory["name"] for memory in plan["memories"]}
    assert {"activation", "weight", "residual", "accumulator", "softmax rows"} <= names


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(9, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.table(ids))
        return self.head((x * (ids != 0)[:, :, None]).mean(1))


def test_the_host_part_is_listed(weft, tmp_path):
    torch.manual_seed(0)
    path, record = tmp_path / "program.weft", tmp_path / "plan.json"
    ids = torch.randint(0, 9, (2, 6))
    compile_module(Classifier(), (ids,), PRESETS["tiny"], [(ids,)]).save(path)
    text = weft("inspect", path, "--json", record).out
    assert "Computed by the host" in text
    for line in (r"head.*after.*linear", r"the module|Classifier.*after.*mean"):
        assert re.search(line, text), line
    assert json.loads(record.read_text())["host"]["after"][-2:] == [
        "aten.mean.dim", "aten.linear.default",
    ]  # fmt: skip


def test_no_host_part_no_list(in_a_file):
    assert "Computed by the host" not in in_a_file


def test_a_language_model(weft, tmp_path):
    """Its passes, as many columns as there are; a pass can be disassembled, the file not run."""
    shape = DecoderShape(hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90,
                         context=40, key_block=16)  # fmt: skip
    program = lower_decoder(decoder(shape), "tiny", (1, 4))
    path, record = tmp_path / "model.weft", tmp_path / "model.json"
    program.save(path)
    text = weft("inspect", path, "--json", record).out
    assert re.search(r"positions of a sequence +40", text) and "90" in text
    passes = json.loads(record.read_text())["passes"]
    assert [item["tokens"] for item in passes] == [1, 4]
    for item, entry in zip(passes, program.entries.values(), strict=True):
        last = 40 - item["tokens"]
        shown = f"{item['commands']:,} .* {entry.estimated_cycles(last):,} "
        assert re.search(rf"{item['tokens']} +{shown}", text), shown
    one, four = (weft("disassemble", path, "--tokens", n).out for n in (1, 4))
    assert one == weft("disassemble", path).out and "SELECT" in one
    assert len(four.splitlines()) != len(one.splitlines()) and "rows=4" in four
    assert (
        "no pass of 3 tokens: the program has those of 1, 4"
        in weft("disassemble", path, "--tokens", 3).error()
    )
    assert "not a program file but a decoder program file" in weft("run", path).error()


def test_several_entries(weft, tmp_path):
    """A line each; each is shown, disassembled and run as if it were alone."""
    shape = DecoderShape(hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90,
                         context=40, key_block=16)  # fmt: skip
    words, layers = (
        lower_decoder(decoder(shape), "tiny", (1, 4)),
        Encoder(16, 2, 32, 12).program(PRESETS["tiny"]),
    )
    paths = {name: tmp_path / f"{name}.weft" for name in ("words", "layers", "all")}
    words.save(paths["words"])
    layers.save(paths["layers"])
    JointProgram({"words": words, "layers": layers}).save(paths["all"])
    text = weft("inspect", paths["all"], "--json", tmp_path / "all.json").out
    entries = json.loads((tmp_path / "all.json").read_text())["entries"]
    assert re.search(rf"layers +{layers.command_count:,} .* of the module", text)
    assert re.search(rf"words .* {entries['words']['predicted_cycles']:,} +tokens", text)
    listing = weft("disassemble", paths["all"]).out
    for name in ("words", "layers"):
        alone, entry = (paths[name],), (paths["all"], "--entry", name)
        for command in ("inspect", "disassemble"):
            assert weft(command, *entry).out == weft(command, *alone).out
        assert f"; entry {name}\n" + weft("disassemble", *alone).out in listing
    x = tmp_path / "x.npy"
    np.save(x, np.ones(layers.graph.inputs[0].shape, np.float32))
    given = ("--input", x, "--device", "golden")
    found = weft("run", paths["all"], "--entry", "layers", *given).out
    assert found == weft("run", paths["layers"], *given).out
    for line, arguments in (
        ("has several entries: give --entry words, layers", ("run", paths["all"])),
        ("'words' is a language model's", ("run", paths["all"], "--entry", "words")),
        ("no entry 'x': ", ("inspect", paths["all"], "--entry", "x")),
        ("several entries, which", ("disassemble", paths["words"], "--entry", "words")),
        ("no pass of 3 tokens", ("disassemble", paths["all"], "--tokens", 3)),
        ("--activity is of programs", ("inspect", paths["all"], "--activity")),
    ):
        assert line in weft(*arguments).error(), line


def test_passes_are_of_language_models(weft, tmp_path, model):
    program = tmp_path / "small.weft"
    weft("compile", f"{model}:small", "-o", program, "--config", "tiny")
    assert (
        "--tokens is for a language model's" in weft("disassemble", program, "--tokens", 1).error()
    )
