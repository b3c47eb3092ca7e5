"""Checkpoints of 4 bits: their values, as they stand in the file, are those of the program."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sw.cli.generate import generate
from sw.compiler.graph.operations import QuantGated, QuantLinear
from sw.models.generator import Generator
from sw.models.language_model import LanguageModel
from tests.sw.models.checkpoints import tiny_module, tiny_tokenizer, write_gguf
from tests.sw.models.test_language_model import ON, PROMPT, greedy, short_texts

__all__ = ["short_texts"]


@pytest.fixture(scope="module", params=["Q4_0", "Q4_1"])
def file(request, tmp_path_factory) -> Path:
    """Linears of 4 bits, embedding and head of 8, as llama.cpp writes them."""
    folder = tmp_path_factory.mktemp(request.param)
    eight = {"token_embd.weight": "Q8_0", "output.weight": "Q8_0"}
    path = folder / "tiny.gguf"
    return write_gguf(path, tiny_module(), tiny_tokenizer(), request.param, types=eight)


def stored(file: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of 0..15 of a tensor, [outputs, inputs], and the distance of levels of each group.

    Of the format: a half-precision distance (and in Q4_1 a minimum), then 16 bytes with the first
    16 values in the low nibbles, the other 16 in the high ones.
    """
    tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == name)
    head = {"Q4_0": 2, "Q4_1": 4}[tensor.tensor_type.name]
    blocks = np.array(tensor.data).reshape(tensor.data.shape[0], -1, head + 16)
    distance = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    values = np.concatenate([blocks[..., head:] & 15, blocks[..., head:] >> 4], axis=2)
    return values.reshape(len(blocks), -1), distance.astype(np.float64)


def test_values_of_the_file(file):
    graph = Generator("tiny", 64, model=LanguageModel(file), bits=4).graph
    linears = [op for op in graph.ops if isinstance(op, QuantLinear | QuantGated)]
    assert {op.format.name for op in linears} == {"q4/32@4", "q4/4@4"}
    gated = next(op for op in linears if isinstance(op, QuantGated))
    down = next(op for op in linears if isinstance(op, QuantLinear) and op.weight.shape[1] == 64)
    for name, values, multipliers in (
        ("blk.0.ffn_gate.weight", gated.gate, gated.gate_multipliers),
        ("blk.0.ffn_up.weight", gated.up, gated.up_multipliers),
        ("blk.0.ffn_down.weight", down.weight, down.multipliers),
    ):
        wanted, distance = stored(file, name)
        wanted, found = (part.reshape(len(part), -1, 32).astype(int) for part in (wanted, values))
        wanted = np.where(distance[..., None] < 0, 15 - wanted, wanted)
        # Groups with all levels; others may have them further apart.
        whole = wanted.max(axis=2) - wanted.min(axis=2) == 15
        assert whole.mean() > 0.2, name
        np.testing.assert_array_equal(found[whole] + 8, wanted[whole], name)
        # Scales have a unit for each output, and are rounded to it.
        scale, distance = multipliers[..., 0], np.abs(distance)
        unit = distance.max(axis=1) / scale.max(axis=1)
        off = np.abs(scale * unit[:, None] - distance) / unit[:, None]
        assert off[whole].max() < 1, name


def test_passes(file):
    """Tiles of 4 bits arrive in the time of fewer tokens: there are two passes more to choose."""
    for bits, wanted in ((8, [1, 4, 8, 32]), (4, [1, 4, 5, 6, 8, 32])):
        program = Generator("tiny", 64, model=LanguageModel(file), bits=bits).program()
        assert sorted(program.entries) == wanted


def test_tokens_are_those_of_the_module(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [PROMPT, "--model", file, *ON, "--tokens", 6, "--bits", 4, "--json", "found.json"]
    result = CliRunner().invoke(generate, list(map(str, given)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("found.json").read_text())["tokens"]
    model = LanguageModel(file)
    module = model.checkpoint.module
    assert isinstance(module, torch.nn.Module)
    ids = model.prompt([{"role": "user", "content": PROMPT}])
    assert found == greedy(module, ids, 6)


def test_a_machine_without_scales(file):
    given = [PROMPT, "--model", file, "--config", "ulx3s", "--device", "golden", "--bits", 4]
    result = CliRunner().invoke(generate, list(map(str, given)))
    assert "configuration 'ulx3s' has no language models" in str(result.exception)


def test_a_window_and_drafts(file, tmp_path, monkeypatch):
    """Texts go on behind the window, and drafts change none of them."""
    monkeypatch.chdir(tmp_path)
    found = []
    for more in ([], ["--draft", "lookup"]):
        given = [PROMPT, "--model", file, *ON, "--bits", 4, "--window", 20, "--tokens", 60, *more]
        given += ["--json", "found.json"]
        result = CliRunner().invoke(generate, list(map(str, given)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        found.append(json.loads(Path("found.json").read_text())["tokens"])
    assert found[0] == found[1] and len(found[0]) > 30
