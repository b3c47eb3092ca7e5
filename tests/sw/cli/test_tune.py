"""`weft tune`: plans within their budgets, everything written, refusals by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sw.compiler.program.program import Program


@pytest.fixture
def tuned(weft, model, tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))

    def run(*options: object):
        file = tmp_path / "front.json"
        outcome = weft("tune", f"{model}:small", "--config", "tiny", "--json", file, *options)
        return outcome, json.loads(file.read_text()) if file.exists() else None

    return run


def test_accuracy(tuned, tmp_path) -> None:
    program, picture = tmp_path / "a.weft", tmp_path / "a.png"
    outcome, found = tuned("--accuracy", "0.97", "-o", program, "--picture", picture)
    assert outcome.code == 0, outcome
    plan = found["plan"]
    assert set(plan["formats"]) == {"first", "second"} and "2:4 int8" in plan["formats"].values()
    assert 0.97 <= plan["cosine"] < 1 and plan["least"] <= plan["cosine"]
    assert plan["cycles"] < found["measured"][0]["cycles"]
    assert "2:4 int8" in outcome.out and "chosen" in outcome.out
    assert picture.stat().st_size > 1000 and Program.load(program).outputs
    # Nothing is measured twice: the second run only reads, and gives the same.
    again, same = tuned("--accuracy", "0.97")
    assert again.code == 0 and same == found


def test_nothing_but_dense_is_good_enough(tuned) -> None:
    outcome, found = tuned("--accuracy", "0.9999")
    assert outcome.code == 0 and set(found["plan"]["formats"].values()) == {"int8"}
    outcome, _ = tuned("--accuracy", "0.9999999")
    assert (
        outcome.code == 1
        and "the most accurate, 1 int8, 1 int8 x int16, has a mean cosine" in outcome.err
    )


def test_bytes_and_cycles(tuned) -> None:
    outcome, found = tuned("--bytes", "300", "--format", "int4")
    assert outcome.code == 0, outcome
    assert found["plan"]["weight_bytes"] <= 300
    assert sorted(found["plan"]["formats"].values()) == ["int4", "int8"]
    most = found["front"][0]["cycles"]
    outcome, found = tuned("--cycles", int(most) - 1)
    assert outcome.code == 0 and found["plan"]["cycles"] <= most - 1
    outcome, _ = tuned("--cycles", 10)
    assert outcome.code == 1 and "no plan keeps to 10 cycles: the cheapest needs" in outcome.err


def test_structured(tuned, weft, tmp_path, model) -> None:
    """Channels go; the smaller module is one that compiles and that `weft recover` trains."""
    program, module, original = tmp_path / "s.weft", tmp_path / "s.pt2", tmp_path / "m.pt2"
    options = ("--structured", "--format", "int8", "--cycles", "0.95", "-o", program)
    outcome, found = tuned(*options, "--module", module)
    assert outcome.code == 0, outcome
    plan, dense = found["plan"], found["measured"][0]
    assert plan["cuts"]["second"] in (4, 8, 12, 16) and dense["cuts"] == {"second": 18}
    assert plan["cycles"] <= 0.95 * dense["cycles"] and plan["cosine"] < dense["cosine"]
    assert f"{plan['cuts']['second']} of 18 channels" in outcome.out
    assert Program.load(program).outputs
    small = torch.export.load(module)
    assert small.state_dict["first.weight"].shape == (plan["cuts"]["second"], 10)
    torch.export.save(torch.export.export(_small(model), (torch.zeros(1, 5, 10),)), original)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((30, 1, 5, 10)))
    command = ("recover", original, "--inputs", tmp_path / "x.npy", "--student", module)
    outcome = weft(*command, "-o", tmp_path / "r.pt2", "--steps", 40, "--rate", 1e-3)
    assert outcome.code == 0, outcome
    curve = json.loads((tmp_path / "r.pt2.curve.json").read_text())
    assert curve[-1]["mean"] > curve[0]["mean"]
    recovered = torch.export.load(tmp_path / "r.pt2").state_dict
    assert all(recovered[name].shape == value.shape for name, value in small.state_dict.items())
    assert not torch.equal(recovered["first.weight"], small.state_dict["first.weight"])


def test_structured_with_formats(tuned) -> None:
    """A sixth of the bytes: 2:4 alone ends at 225, cuts alone at 80."""
    outcome, found = tuned("--structured", "--format", "2:4 int8", "--bytes", 60)
    assert outcome.code == 0, outcome
    plan = found["plan"]
    assert plan["cuts"]["second"] < 18 and "2:4 int8" in plan["formats"].values()
    assert plan["weight_bytes"] <= 60 and found["measured"][0]["weight_bytes"] == 360


def _small(model: Path) -> torch.nn.Module:
    names: dict = {}
    exec(model.read_text(), names)
    return names["Small"]().eval()


def test_structured_refusals(tuned, weft, tmp_path) -> None:
    for arguments, message in (
        (("--cycles", 900, "--module", "a.pt2"), "add --structured"),
        (("--structured", "--cycles", 900, "--module", "a.bin"), "is a .pt2 file, not a.bin"),
        (("--structured", "--format", "int8", "--cycles", 10), "no plan keeps to 10 cycles: the"),
    ):
        outcome, _ = tuned(*arguments)
        assert message in outcome.error()
    outcome = weft("recover", "a.pt2", "-o", "b.pt2", "--student", "c.pt2", "--linear", "first")
    assert "--student is pruned already" in outcome.error()


def test_inputs_of_16_bits(tuned, tmp_path) -> None:
    """The front begins above dense INT8, at more cycles and the same bytes."""
    outcome, dense = tuned("--cycles", 10**6, "--format", "2:4 int8")
    assert outcome.code == 0 and set(dense["plan"]["formats"].values()) == {"int8"}
    program = tmp_path / "wide.weft"
    outcome, found = tuned("--cycles", 10**6, "-o", program)
    plan = found["plan"]
    assert outcome.code == 0 and plan["formats"] == {"first": "int8", "second": "int8 x int16"}
    assert plan["cosine"] > dense["plan"]["cosine"] and plan["predicted_error"] < 0
    assert plan["weight_bytes"] == dense["plan"]["weight_bytes"]
    assert plan["cycles"] > dense["plan"]["cycles"]
    assert "int8 x int16" in outcome.out and Program.load(program).outputs
    # Enough cycles for INT8 only.
    outcome, found = tuned("--cycles", dense["plan"]["cycles"])
    assert outcome.code == 0 and set(found["plan"]["formats"].values()) == {"int8"}
    # They cost no bytes, so bytes say nothing about them.
    outcome, found = tuned("--bytes", 10**6)
    assert outcome.code == 0 and set(found["plan"]["formats"].values()) == {"int8"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "give one of --accuracy, --cycles and --bytes"),
        (("--bytes", 9, "--cycles", 9), "give one of --accuracy, --cycles and --bytes"),
        (("--accuracy", "2"), "a cosine between 0 and 1"),
        (("--bytes", 300, "--format", "int3"), "unknown weight format 'int3'"),
        (("--bytes", 300, "--format", "q4/32"), "is a format of language models"),
        (("--bytes", 300, "--picture", "front.pdf"), "front.pdf is no .png file"),
        (("--bytes", 300, "--config", "huge"), "unknown configuration 'huge'"),
        (("--bytes", 300, "--measure", 1), "at least 2 plans"),
    ],
)
def test_refusals(tuned, options, text: str) -> None:
    outcome, found = tuned(*options)
    assert outcome.code != 0 and found is None
    assert text in outcome.err


PICTURES = """
import torch
import transformers

def picture(seed):
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))

def model(name, **more):
    torch.manual_seed(0)
    config = getattr(transformers, name + "Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        **more)
    module = getattr(transformers, name + "Model")(config).eval()
    return module, picture(0), [picture(seed) for seed in range(1, 9)]

def vit():
    return model("ViT", intermediate_size=32)

def dinov2():
    return model("Dinov2", mlp_ratio=2)
"""


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_pictures(weft, name, tmp_path, monkeypatch) -> None:
    """The host writes a picture patch by patch: its graph is for one size, and is not cut."""
    pytest.importorskip("transformers")
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    model, program, file = tmp_path / "m.py", tmp_path / "p.weft", tmp_path / "front.json"
    model.write_text(PICTURES)
    command = ("tune", f"{model}:{name}", "--config", "tiny", "--json", file, "-o", program)
    outcome = weft(*command, "--cycles", 0.85, "--format", "2:4 int8")
    assert outcome.code == 0, outcome
    found = json.loads(file.read_text())
    dense = found["measured"][0]
    assert found["plan"]["cycles"] < dense["cycles"]
    assert 0 < found["plan"]["cosine"] <= dense["cosine"]
    plan = found["plan"]["formats"]
    assert "2:4 int8" in plan.values() and any("patch_embeddings" in place for place in plan)
    assert Program.load(program).estimated_cycles == found["plan"]["cycles"]
    outcome = weft(*command, "--structured", "--cycles", 0.95, "--format", "int8")
    assert outcome.code == 0, outcome
    found = json.loads(file.read_text())
    assert sum(found["plan"]["cuts"].values()) < 2 + 32
    assert found["plan"]["cycles"] < found["measured"][0]["cycles"]
    assert Program.load(program).estimated_cycles == found["plan"]["cycles"]
