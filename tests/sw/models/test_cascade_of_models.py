"""`weft generate --cascade`: two tiny language models on one device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sw.bench.decoders import DecoderShape, decoder
from sw.cli.generate import chat, generate
from sw.compiler import compile_module
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.driver.errors import DeviceError
from tests.sw.models.checkpoints import tiny_module, tiny_tokenizer, write_folder
from tests.sw.models.test_language_model import short_texts

__all__ = ["short_texts"]

PROMPT = "the weights and the rows"
ON = ["--config", "tiny", "--device", "golden", "--context", "256"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("model")
    return write_folder(home / "large", tiny_module(max_position_embeddings=256), tiny_tokenizer())


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A smaller model with the same tokens."""
    home = tmp_path_factory.mktemp("model")
    module = tiny_module(max_position_embeddings=256, num_hidden_layers=1)
    return write_folder(home / "small", module, tiny_tokenizer())


def answered(folder: Path, *options: object) -> dict:
    given = [PROMPT, "--model", folder, *ON, "--tokens", 16, *options, "--json", "found.json"]
    result = CliRunner().invoke(generate, list(map(str, given)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(Path("found.json").read_text()) | {"output": result.output}


@pytest.mark.parametrize("by", ["token", "answer"])
def test_never_and_always(folder, other, tmp_path, monkeypatch, by):
    """Of 4 bits and of another model: equal to each alone, with and without drafts."""
    monkeypatch.chdir(tmp_path)
    large = answered(folder)["tokens"]
    for small, alone in (
        ("4", answered(folder, "--bits", 4)["tokens"]),
        (other, answered(other)["tokens"]),
    ):
        assert alone != large
        for draft in ([], ["--draft", "lookup", "--draft-tokens", "3"]):
            for threshold, expected in ((0, alone), (1, large)):
                options = ["--cascade", small, "--threshold", threshold, "--cascade-by", by, *draft]
                found = answered(folder, *options)
                assert found["tokens"] == expected, (small, threshold, draft)
                cascade = found["decoding"]["cascade"]
                assert (cascade["asked"] == 0) == (threshold == 0)
                assert cascade["expected_cycles"] > 0
    assert "the large model was asked, times" in found["output"]


def test_a_threshold_for_an_agreement(folder, tmp_path, monkeypatch):
    """All of it needs the large model; less of it a lower threshold."""
    monkeypatch.chdir(tmp_path)
    thresholds = []
    for agreement in (1, 0.99, 0.9, 0.5):
        found = answered(folder, "--cascade", 4, "--agreement", agreement)
        thresholds.append(found["decoding"]["cascade"]["threshold"])
        assert agreement < 1 or found["tokens"] == answered(folder)["tokens"]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] == 1 > thresholds[2] > thresholds[-1]


def test_chat(folder):
    given = ["--model", str(folder), *ON, "--tokens", "6"]
    found = [
        CliRunner().invoke(chat, [*given, *more], input="the array\nand\n", catch_exceptions=False)
        for more in ([], ["--cascade", "4", "--threshold", "1"])
    ]
    assert [result.exit_code for result in found] == [0, 0]
    assert found[0].stdout == found[1].stdout  # progress depends on what is in the cache


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--threshold", "0.5"], "--threshold needs --cascade: the small model"),
        (["--agreement", "0.5"], "--agreement needs --cascade: the small model"),
        (
            ["--cascade", "4", "--agreement", "0.9", "--threshold", "0.5"],
            "--agreement and --threshold: one of the two",
        ),
        (["--cascade", "4", "--threshold", "1.5"], "threshold 1.5: a number from 0"),
        (["--cascade", "4", "--threshold", "nan"], "threshold nan: a number from 0"),
        (["--cascade", "4", "--agreement", "0"], "agreement 0.0: a share above 0, at most 1"),
        (["--cascade", "4", "--agreement", "1.1"], "agreement 1.1: a share above 0, at most 1"),
        (["--cascade", "4", "--bits", "4"], "--cascade 4 with --bits 4: the small model is the"),
        (["--cascade", "5"], "--cascade 5: neither 4 nor a file or folder"),
        (["--cascade", "4", "--cascade-by", "answer"], "--cascade-by answer needs --threshold"),
        (["--cascade", "4", "--context", "40"], "no prompt of the calibration fits into 40"),
        (["--cascade", "OTHER"], "other: a cascade needs the vocabulary of large, 2 tokens differ"),
        (["--cascade", "PROGRAM", "--threshold", "1"], "small model has 90 tokens, the large one"),
        (
            ["--cascade", "MACHINE"],
            "the program was compiled for configuration 'base'",
        ),
        (["--cascade", "ENCODER"], "ENCODER is an encoder's program: it selects no tokens"),
    ],
)
def test_bad_input(folder, tmp_path, options, text):
    shape = DecoderShape(
        hidden=16, heads=2, kv_heads=1, ffn=16, layers=1, vocabulary=90, context=40
    )
    for name, machine in (("PROGRAM", "tiny"), ("MACHINE", "base")):
        if name in options:
            lower_decoder(decoder(shape), machine, (1, 4)).save(tmp_path / name)
    if "ENCODER" in options:
        encoder = compile_module(torch.nn.Linear(6, 6), (torch.randn(1, 3, 6),), "tiny")
        encoder.save(tmp_path / "ENCODER")
    if "OTHER" in options:
        copy = shutil.copytree(folder, tmp_path / "other")
        tokenizer = json.loads((copy / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["!"], vocabulary['"'] = vocabulary['"'], vocabulary["!"]
        (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    places = {name: str(tmp_path / name) for name in ("PROGRAM", "MACHINE", "ENCODER")}
    places["OTHER"] = str(tmp_path / "other")
    options = [places.get(option, option) for option in options]
    given = [PROMPT, "--model", str(folder), *ON, *options]
    with pytest.raises((InputError, DeviceError)) as caught:
        CliRunner().invoke(generate, given, catch_exceptions=False)
    assert text in str(caught.value) and "\n" not in str(caught.value)
