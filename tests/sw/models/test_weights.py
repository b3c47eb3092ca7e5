"""Other weights for all-MiniLM-L6-v2: taken whole, or refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear
from sw.models import minilm
from sw.recover.result import save_minilm
from sw.recover.student import Model
from sw.recover.text import TextBatches, exported_minilm

NAME = "encoder.layer.0.attention.self.query.weight"


def test_weights_of_a_student_are_the_model_again(tmp_path):
    student = Model(exported_minilm())
    assert len(student.linears) == 36  # the pooler is not among them
    changed = student.parameter(f"model.{NAME}")
    changed[:, ::2] = 0
    path = str(tmp_path / "w.safetensors")
    save_minilm(student, path)
    graph = minilm.float_graph(8, weights=path)
    linears = [op for op in graph.ops if isinstance(op, FloatLinear)]
    assert torch.equal(torch.from_numpy(linears[0].weight), changed)
    assert minilm.load_module().get_parameter(NAME)[:, ::2].all(), "the original has changed"


def cut(state: dict[str, torch.Tensor], heads: int, channels: int) -> dict[str, torch.Tensor]:
    """The first layer with its first heads and channels."""
    layer, found = "encoder.layer.0", dict(state)
    for name in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            place = f"{layer}.attention.self.{name}.{kind}"
            found[place] = state[place][: 32 * heads].clone()
    for place, size in ((f"{layer}.attention.output", 32 * heads), (f"{layer}.output", channels)):
        found[f"{place}.dense.weight"] = state[f"{place}.dense.weight"][:, :size].clone()
    for kind in ("weight", "bias"):
        place = f"{layer}.intermediate.dense.{kind}"
        found[place] = state[place][:channels].clone()
    return found


def test_fewer_heads_and_channels(tmp_path):
    state = dict(minilm.load_module().state_dict())
    path, again, odd = (str(tmp_path / f"{name}.safetensors") for name in ("w", "again", "odd"))
    save_file(cut(state, 5, 48), path)
    graph = minilm.float_graph(8, weights=path)
    shapes = [op.weight.shape for op in graph.ops if isinstance(op, FloatLinear)]
    assert shapes[:6] == [(160, 384)] * 3 + [(384, 160), (48, 384), (384, 48)]
    assert set(shapes[6:]) == {(384, 384), (1536, 384), (384, 1536)}
    save_minilm(Model(exported_minilm(path)), again)
    assert torch.equal(minilm.load_module(again).get_parameter(NAME), state[NAME][:160])
    one = "encoder.layer.0.output.dense.weight"
    save_file({**cut(state, 5, 48), one: state[one][:, :49].clone()}, odd)
    with pytest.raises(CompileError, match="do not fit together"):
        minilm.load_module(odd)


def test_other_weights_are_refused(tmp_path):
    path = str(tmp_path / "w.safetensors")
    state = {name: value.clone() for name, value in minilm.load_module().state_dict().items()}
    save_file({**state, NAME: torch.zeros(3, 4)}, path)
    with pytest.raises(CompileError, match=rf"{NAME} has shape \(3, 4\) instead of \(384, 384\)"):
        minilm.load_module(path)
    path = str(tmp_path / "less.safetensors")
    save_file({name: value for name, value in state.items() if name != NAME}, path)
    with pytest.raises(CompileError, match=f"{NAME} is only in one"):
        minilm.load_module(path)
    with pytest.raises(CompileError, match="missing"):
        minilm.load_module(str(tmp_path / "missing.safetensors"))


def test_batches_of_text_need_no_padding():
    """Every row begins with [CLS] and ends with [SEP]; each pass has new made-up sentences."""
    texts = [f"The {word} is here again, as ever." for word in minilm.vocabulary_words()[:60]]
    data = TextBatches(texts, 100, 0)
    passes = []
    for number in (0, 1, 0):
        batches = [batch[0][0] for batch in data.epoch(number)]
        passes.append({tuple(row.tolist()) for ids in batches for row in ids})
        assert sum(len(ids) for ids in batches) == round(60 / 0.65)
        assert all((ids[:, 0] == 101).all() and (ids[:, -1] == 102).all() for ids in batches)
        assert all(ids.numel() <= 100 for ids in batches)
    assert passes[0] == passes[2] != passes[1]
