"""In-place changes, state, and what a caller hands over: the right value, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sw.compiler import compile_module
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, UnsupportedOperation
from tests.sw.compiler.capture.test_frontend import check, kinds

WIDTH = 16


class Changed(nn.Module):
    """Two linears, with something done in place to what is between them."""

    def __init__(self, change) -> None:
        super().__init__()
        self.a, self.b, self.change = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        self.change(h)
        return self.b(h)


WHOLE = {
    "relu_": lambda h: h.relu_(),
    "through a flat view": lambda h: functional.relu(h.view(-1, WIDTH), inplace=True),
    "through a transposed view": lambda h: functional.relu(h.transpose(0, 1), inplace=True),
    "all of a slice": lambda h: h[:, 0:].relu_(),
    "a constant to all": lambda h: h.add_(1.5),
    "a factor per feature": lambda h: h.mul_(torch.arange(WIDTH)),
}


@pytest.mark.parametrize("change", WHOLE)
def test_changes_of_whole_values_are_lowered(change: str) -> None:
    torch.manual_seed(0)
    check(Changed(WHOLE[change]), torch.randn(2, 6, WIDTH))


def _first_half(h: torch.Tensor) -> None:
    h.chunk(2, dim=-1)[0].zero_()


def _head_by_head(h: torch.Tensor) -> None:
    heads = h.view(*h.shape[:2], 4, -1)
    for head in range(4):
        heads[:, :, head] = heads[:, :, head].relu()


PARTS = {
    "slice": lambda h: h[:, 1:].add_(1.0),
    "slice of features": lambda h: h[..., 3:5].mul_(2.0),
    "select": lambda h: h[:, 0].fill_(0),
    "chunk": _first_half,
    "index": lambda h: h.index_put_((torch.tensor([0]), torch.tensor([1])), torch.zeros(WIDTH)),
    "mask": lambda h: h.masked_fill_(torch.arange(WIDTH) < 3, 0.0),
    "head by head": _head_by_head,
    "diagonal": lambda h: h.diagonal(dim1=1, dim2=2).zero_(),
}


@pytest.mark.parametrize("change", PARTS)
def test_changes_of_parts_are_refused_at_their_line(change: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedOperation, match=r"test_functional\.py|at a "):
        import_module(Changed(PARTS[change]), torch.randn(2, 6, WIDTH))


def test_masks_finished_by_slices_are_executed() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = torch.zeros(5, 5, dtype=torch.bool)
            for row in range(5):
                seen[row, : row + 1] = True
            heads = x[:, None]
            return functional.scaled_dot_product_attention(heads, heads, heads, seen)[:, 0]

    torch.manual_seed(0)
    graph = check(Masked(), torch.randn(2, 5, WIDTH))
    assert [op.causal for op in graph.ops if hasattr(op, "causal")] == [True]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("calls", torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x + self.calls)


class Renormalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(9, WIDTH, max_norm=1.0), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(self.table(ids))


@pytest.mark.parametrize(
    ("module", "example", "name"),
    [
        (Counter(), torch.zeros(1, 4, WIDTH), "buffer 'calls'"),
        (Renormalised(), torch.zeros(1, 4, dtype=torch.long), "parameter 'table.weight'"),
    ],
)
@pytest.mark.parametrize("exported", [False, True])
def test_state_is_refused_by_name_and_left_alone(module, example, name, exported) -> None:
    before = {key: value.clone() for key, value in module.state_dict().items()}
    given = torch.export.export(module.eval(), (example,), strict=False) if exported else module
    with pytest.raises(UnsupportedOperation, match=f"changes its {name}"):
        import_module(given, (example,))
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    if exported:
        assert all(torch.equal(given.state_dict[key], before[key]) for key in before)


class Attributes(nn.Module):
    """State that is no buffer: a number, a tensor, a part in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.Dropout(0.5))
        self.count, self.table = 0, torch.ones(WIDTH)
        self.train()
        self.inner.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.inner(self.linear(x)) + self.table


def test_a_module_stays_as_it_is_and_compiles_to_the_same_bytes() -> None:
    torch.manual_seed(0)
    module, x = Attributes(), torch.randn(1, 5, WIDTH)
    data = [(torch.randn(1, 5, WIDTH),) for _ in range(3)]
    first, second = (compile_module(module, (x,), "tiny", data) for _ in range(2))
    assert np.array_equal(first.commands, second.commands)
    assert np.array_equal(first.constants, second.constants)
    assert module.count == 0 and module.training and not module.inner.training


def test_an_input_changed_in_place_stays_and_is_named() -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x += 1.0
            return functional.relu(x)

    x = torch.randn(1, 4, WIDTH)
    before = x.clone()
    with pytest.warns(UserWarning, match="changes its input 'x' in place"):
        graph = import_module(Adds(), (x,))
    assert torch.equal(x, before) and kinds(graph)[-1] == "Activation"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 8), nn.ReLU()).to(dtype)
    x = torch.randn(1, 5, WIDTH, dtype=dtype)
    program = compile_module(module, (x,), "tiny", [(x,), (x.requires_grad_(),)])
    assert module[1].weight.dtype == dtype and program.graph.outputs[0].shape == (1, 5, 8)


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (lambda x: x, torch.zeros(1, 2, 3), "give an nn.Module"),
        (nn.Linear(3, 3, device="meta"), torch.zeros(1, 2, 3), "'weight' is on device meta"),
        (nn.LazyLinear(3), torch.zeros(1, 2, 3), "'weight' has no shape yet"),
        (nn.Linear(3, 3), torch.zeros(0, 2, 3), "example input 0 is empty"),
    ],
)
def test_what_is_no_module_or_no_example(module, example, message) -> None:
    with pytest.raises(CompileError, match=message):
        import_module(module, (example,))


def test_one_tensor_given_twice_stays_two_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Embedding(9, WIDTH), nn.Embedding(9, WIDTH)

        def forward(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            return functional.relu(self.a(ids) + self.b(types))

    ids = torch.zeros(1, 4, dtype=torch.long)
    graph = import_module(Two(), (ids, ids))
    (embedding,) = [op for op in graph.ops if type(op).__name__ == "FloatEmbedding"]
    assert embedding.indices == ("ids", "types")
