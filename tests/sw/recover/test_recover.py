"""Recovery: masks stay, the student comes closer, a run goes on as if it had not stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.export import ExportedProgram

from hw.sparse.formats import KEPT, quads
from sw.compiler.errors import CompileError, InputError
from sw.compiler.quantise.sparse import keep_largest
from sw.models import corpus
from sw.recover.arrays import ArrayBatches, load_inputs
from sw.recover.prune import sparse_weight
from sw.recover.result import save_program
from sw.recover.student import Model
from sw.recover.train import Limits, Settings, Training

ENTRIES, TOKENS, FEATURES = 60, 6, 14  # not a multiple of 4


@pytest.fixture(autouse=True)
def one_thread():
    """As the command does: small products get slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


class Small(nn.Module):
    """Two linears that read the same value, one that has no bias, one norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.left, self.right = nn.Linear(FEATURES, 24), nn.Linear(FEATURES, 24)
        self.down = nn.Linear(24, FEATURES, bias=False)
        self.norm = nn.LayerNorm(FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.down(torch.relu(self.left(x)) + self.right(x)))


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return torch.export.export(Small().eval(), (torch.zeros(1, TOKENS, FEATURES),), strict=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> str:
    generator = np.random.default_rng(7)
    path = tmp_path_factory.mktemp("inputs") / "x.npy"
    mix = generator.standard_normal((FEATURES, FEATURES))
    np.save(path, generator.standard_normal((ENTRIES, 1, TOKENS, FEATURES)) @ mix)
    return str(path)


def training(program: ExportedProgram, inputs: str, names: list[str] | None = None) -> Training:
    teacher, student = Model(program), Model(program)
    data = ArrayBatches(load_inputs(inputs, program), 4, 0)
    chosen = list(student.linears) if names is None else names
    settings = Settings(rate=5e-3, batch=4)
    return Training(teacher, student, chosen, data, data.held_out, lambda o: o[0], settings)


def kept(weight: torch.Tensor) -> np.ndarray:
    """How many of each four inputs are not 0."""
    return (quads(weight.numpy()) != 0).sum(axis=2)


def test_the_student_comes_closer_and_keeps_its_masks(program, inputs, tmp_path):
    run = training(program, inputs)
    run.start()
    masks = {name: run.student.parameter(name) != 0 for name in run.names}
    curve = run.run(Limits(steps=60), tmp_path / "x.checkpoint")
    assert curve[0].mean < 0.98 and curve[-1].mean > curve[0].mean + 0.005
    for name, mask in masks.items():
        weight = run.student.parameter(name)
        assert (kept(weight) == np.minimum(kept(run.teacher.parameter(name)), KEPT)).all()
        assert ((weight != 0) <= mask).all()
    other = training(program, inputs)
    assert torch.equal(other.teacher.parameter("left.weight"), Small().left.weight)


def test_the_result_is_a_program_of_the_recovered_weights(program, inputs, tmp_path):
    run = training(program, inputs)
    run.start()
    run.run(Limits(steps=5), tmp_path / "x.checkpoint")
    save_program(program, run.student, str(tmp_path / "x.pt2"))
    loaded = torch.export.load(tmp_path / "x.pt2").module()
    x = run.held_out[0]
    assert torch.equal(loaded(*x), run.student.run(x)[0][0])
    assert not torch.equal(loaded(*x), run.teacher.run(x)[0][0])


def test_only_the_named_linears_are_pruned(program, inputs):
    run = training(program, inputs, ["down.weight"])
    run.start()
    assert (kept(run.student.parameter("down.weight")) <= KEPT).all()
    assert torch.equal(run.student.parameter("left.weight"), run.teacher.parameter("left.weight"))


def test_a_run_that_stops_goes_on_where_it_was(program, inputs, tmp_path):
    """Interrupted and taken up again, it gives the same bits."""
    whole = training(program, inputs)
    whole.start()
    whole.run(Limits(steps=20), tmp_path / "whole.checkpoint")

    def stop(_done: float, step: int, *_rest: object) -> None:
        if step == 15:  # in the second epoch
            raise KeyboardInterrupt

    first = training(program, inputs)
    first.start()
    with pytest.raises(KeyboardInterrupt):
        first.run(Limits(steps=20), tmp_path / "part.checkpoint", stop)
    second = training(program, inputs)
    second.resume(tmp_path / "part.checkpoint")
    assert second.state.step == 15
    second.run(Limits(steps=20), tmp_path / "part.checkpoint")
    for name in whole.trained:
        assert torch.equal(whole.student.parameter(name), second.student.parameter(name)), name
    assert [(p.step, p.mean) for p in whole.state.curve] == [
        (p.step, p.mean) for p in second.state.curve
    ]


def test_pruning_beats_magnitude_on_correlated_inputs():
    generator = np.random.default_rng(11)
    x = generator.standard_normal((400, 22)) @ generator.standard_normal((22, 22))
    weight = generator.standard_normal((9, 22))
    pruned = sparse_weight(weight, x.T @ x)
    largest = weight * keep_largest(np.abs(weight))

    def lost(other: np.ndarray) -> float:
        return float(np.square(x @ (weight - other).T).sum())

    assert (quads(pruned) != 0).sum(axis=2).max() <= KEPT
    assert lost(pruned) < 0.4 * lost(largest)


def test_a_checkpoint_of_something_else_is_refused(program, inputs, tmp_path):
    path = tmp_path / "x.checkpoint"
    run = training(program, inputs)
    run.start()
    run.save(path)
    with pytest.raises(CompileError, match="made with another linears"):
        training(program, inputs, ["down.weight"]).resume(path)
    other = Small()
    with torch.no_grad():
        other.left.bias[0] += 1
    changed = torch.export.export(other, (torch.zeros(1, TOKENS, FEATURES),), strict=False)
    with pytest.raises(CompileError, match="checkpoint of another model"):
        training(changed, inputs).resume(path)
    altered = bytearray(path.read_bytes())
    altered[-5] ^= 8
    path.write_bytes(altered)
    with pytest.raises(CompileError, match=r"damaged: .*SHA-256; remove it or give --restart"):
        training(program, inputs).resume(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CompileError, match="damaged or no recovery checkpoint file"):
        training(program, inputs).resume(path)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((4, 1, TOKENS, 9), np.float32), "takes entries of"),
        (np.zeros((1, 1, TOKENS, FEATURES), np.float32), "at least 2"),
        (np.zeros((4, 1, TOKENS, FEATURES), np.int64), "has type int64"),
        (np.full((4, 1, TOKENS, FEATURES), np.nan, np.float32), "NaN or infinity"),
        (np.zeros((), np.float32), "takes entries of"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(program, tmp_path, array, message):
    path = str(tmp_path / "bad.npy")
    np.save(path, array)
    with pytest.raises(InputError, match=message):
        load_inputs(path, program)


def test_token_numbers_outside_the_table_are_refused():
    module = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8))
    example = torch.zeros(1, TOKENS, dtype=torch.int64)
    model = Model(torch.export.export(module.eval(), (example,), strict=False))
    with pytest.raises(CompileError, match="the model refuses these inputs"):
        model.inputs_of("1.weight", (example + 10,))
    assert model.trainable() == ["1.weight", "1.bias"]


def test_names_in_an_npz_are_those_of_the_inputs(program, tmp_path):
    path = str(tmp_path / "named.npz")
    np.savez(path, y=np.zeros((4, 1, TOKENS, FEATURES), np.float32))
    with pytest.raises(InputError, match="has y; the model's inputs are x"):
        load_inputs(path, program)
    np.savez(path, x=np.zeros((4, 1, TOKENS, FEATURES), np.float32))
    assert len(load_inputs(path, program)) == 4


def test_held_out_entries_are_not_trained_on(program, inputs):
    entries = load_inputs(inputs, program)
    data = ArrayBatches(entries, 4, 0)
    trained = [entry for batch in data.epoch(0) for entry in batch]
    assert len(trained) + len(data.held_out) == len(entries)
    assert not {id(entry) for entry in trained} & {id(entry) for entry in data.held_out}
    again = [entry for batch in data.epoch(1) for entry in batch]
    assert {id(e) for e in again} == {id(e) for e in trained}
    assert [id(e) for e in again] != [id(e) for e in trained]


def test_no_evaluation_text_is_trained_on(monkeypatch):
    """One package stands for all: reading every docstring takes minutes."""
    monkeypatch.setattr(corpus, "TRAINING_FOLDERS", {"numpy": ("",)})
    corpus._docstrings.cache_clear()
    corpus._read_technical.cache_clear()
    corpus.training_texts.cache_clear()
    texts = corpus.training_texts()
    held_out = {s for kind in ("technical", "everyday") for s in corpus.evaluation_texts(kind)}
    passages = " ".join(
        p for kind in ("technical", "everyday") for p in corpus.evaluation_texts(f"{kind}-long")
    )
    assert len(texts) > 1000
    assert not held_out & set(texts)
    assert not [t for t in texts if t in passages]
    corpus.training_texts.cache_clear()
    corpus._docstrings.cache_clear()
    corpus._read_technical.cache_clear()
