"""What the host computes before and after the accelerator: as PyTorch does, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sw.compiler import Program, compile_module
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, InputError, UnsupportedOperation
from sw.compiler.graph.host import HostCall, HostError, HostGraph, Ref, TorchName
from sw.compiler.graph.reference import run_reference
from sw.compiler.quantise import quantise
from sw.driver import open_device

WIDTH, TOKENS = 16, 8


def numbers(seed: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 50, (batch, TOKENS), generator=generator)


def padded(seed: int) -> torch.Tensor:
    ids = numbers(seed)
    ids[1, 5 + seed % 3 :] = 0
    return ids


def attend(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    heads = x[:, None]
    return functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)[:, 0]


class Body(nn.Module):
    """Token numbers, types and positions to an attention, in whatever way `forward` has it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.types = nn.Embedding(50, WIDTH), nn.Embedding(2, WIDTH)
        self.places, self.linear = nn.Embedding(TOKENS + 1, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)


class MaskOfIds(Body):
    def forward(self, ids):
        keys = (ids != 0) & (ids != 7)
        return self.linear(attend(self.table(ids), keys[:, None, None, :]))


class Causal(Body):
    def forward(self, ids):
        seen = (ids > 0)[:, None, None, :] & torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        return self.linear(attend(self.table(ids), seen))


class PlacesOfIds(Body):
    def forward(self, ids):
        seen = (ids != 0).int()
        return self.linear(self.table(ids) + self.places(torch.cumsum(seen, 1) * seen))


class Typed(Body):
    """Types come first, and the mask of padding is true where there is padding."""

    def forward(self, types, padding, ids):
        mask = torch.zeros(types.shape).masked_fill(padding, float("-inf"))
        return self.linear(attend(self.table(ids) + self.types(types), mask[:, None, None, :]))


def typed(seed: int) -> tuple:
    ids = padded(seed)
    return (ids > 25).long(), ids == 0, ids


CASES = [(MaskOfIds, padded), (Causal, padded), (PlacesOfIds, padded), (Typed, typed)]


def inputs_of(make, seed: int) -> tuple:
    found = make(seed)
    return found if isinstance(found, tuple) else (found,)


def visible(inputs: tuple, value: np.ndarray) -> np.ndarray:
    return value[(inputs[-1] != 0).numpy()]


@pytest.mark.parametrize(("kind", "make"), CASES)
def test_masks_and_positions_from_token_numbers(kind, make) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    graph = import_module(module, inputs_of(make, 0))
    quantised = quantise(graph, [inputs_of(make, seed) for seed in range(1, 9)])
    for seed in (20, 21, 22):  # other paddings than the example's
        given = inputs_of(make, seed)
        want = module(*given).detach().numpy()
        (found,) = run_reference(quantised, given)
        error = np.abs(visible(given, found - want)).max() / np.abs(want).max()
        assert error < 0.03, f"seed {seed}: {error}"


HIDING = {
    "ids != 7": lambda ids: (ids != 0) & (ids != 7),
    "ids != 3000": lambda ids: (ids != 0) & (ids != 3000),
    "isin": lambda ids: (ids != 0) & ~torch.isin(ids, torch.tensor([40, 1234])),
    "ids < 90": lambda ids: (ids > 0) & (ids < 90),
}


@pytest.mark.parametrize("name", HIDING)
@pytest.mark.parametrize("tokens", [2, 3, 8])
def test_token_numbers_that_only_make_a_mask(name, tokens) -> None:
    """They are no key mask if the mask hides other numbers than 0, of few tokens or large."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x, ids):
            return self.linear(attend(x, HIDING[name](ids)[:, None, None, :]))

    torch.manual_seed(0)
    module = Module().eval()
    x, ids = torch.randn(2, tokens, WIDTH), torch.ones(2, tokens, dtype=torch.int64)
    quantised = quantise(import_module(module, (x, ids)), [(x, ids)])
    for number in (7, 40, 89, 90, 1234, 3000, 5):
        other = ids.clone()
        other[:, -1] = number
        want = module(x, other).detach().numpy()
        (found,) = run_reference(quantised, (x, other))
        assert np.abs(found - want).max() / np.abs(want).max() < 0.03, number


class Segments(Body):
    """Tokens see those of their own segment: a key mask only if all are of one."""

    def forward(self, ids, segments):
        seen = (segments[:, :, None] == segments[:, None, :])[:, None]
        return self.linear(attend(self.table(ids), seen))


def test_inputs_whose_mask_is_none_of_keys_are_refused_when_they_come() -> None:
    torch.manual_seed(0)
    module, ids = Segments().eval(), numbers(0)
    zeros = torch.zeros_like(ids)
    quantised = quantise(import_module(module, (ids, zeros)), [(numbers(1), zeros)])
    run_reference(quantised, (ids, zeros))
    with pytest.raises(InputError, match="queries see different keys"):
        run_reference(quantised, (ids, (torch.arange(TOKENS) > 3).long().expand(2, -1)))
    with pytest.raises(CompileError, match=r"batch 1.*queries see different keys"):
        data = [(ids, zeros), (ids, (torch.arange(TOKENS) > 3).long().expand(2, -1))]
        quantise(import_module(module, (ids, zeros)), data)


# --- heads ------------------------------------------------------------------------------------


class First(Body):
    def forward(self, ids):
        return self.head(self.norm(self.table(ids))[:, 0])


class Pooler(Body):
    def forward(self, ids):
        return self.head(torch.tanh(self.linear(self.norm(self.table(ids))[:, 0])))


class Mean(Body):
    def forward(self, ids):
        x, seen = self.norm(self.table(ids)), (ids != 0).float()[:, :, None]
        mean = (x * seen).sum(1) / seen.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, dim=-1), {"length": ids.shape[1], "kind": "mean"}


class Last(Body):
    def forward(self, ids):
        last = (ids != 0).sum(1) - 1
        return self.head(self.norm(self.table(ids))[torch.arange(ids.shape[0]), last])


class Masked(Body):
    """Returns its mask beside what it computes."""

    def forward(self, ids):
        seen = (ids != 0).float()
        return self.norm(self.table(ids)), seen


class Both(Body):
    def forward(self, ids):
        x = self.norm(self.table(ids))
        return x, torch.cat([x[:, 0], x.mean(1)], -1).softmax(-1)


@pytest.mark.parametrize("kind", [First, Pooler, Mean, Last, Masked, Both])
def test_heads_on_one_row_of_each_sequence(kind) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    data = [(padded(seed),) for seed in range(1, 9)]
    program = compile_module(module, (padded(0),), "tiny", data)
    with open_device("golden", config="tiny") as device:
        for seed in (20, 21):
            ids = padded(seed)
            found, want = device.load(program)(ids), module(ids)
            if not isinstance(want, tuple):
                found, want = (found,), (want,)
            if kind is Mean:
                assert found[1:] == (TOKENS, "mean")
                found, want = found[:1], want[:1]
            for got, expected in zip(found, want, strict=True):
                assert got.shape == expected.shape
                assert (got - expected).abs().max() < 0.03 * expected.abs().max()


def test_a_program_file_holds_the_host_part_and_takes_inputs_by_name(tmp_path) -> None:
    torch.manual_seed(0)
    module = Typed().eval()
    program = compile_module(module, typed(0), "tiny", [typed(seed) for seed in range(1, 9)])
    program.save(tmp_path / "typed.weft")
    again = Program.load(tmp_path / "typed.weft")
    types, padding, ids = typed(30)
    with open_device("golden", config="tiny") as device:
        want = device.load(program)(types, padding, ids)
        found = device.load(again)(ids=ids, padding=padding, types=types)
        assert torch.equal(want, found)
        with pytest.raises(InputError, match=r"3 inputs are needed \(types, padding, ids\)"):
            device.load(again)(types, ids=ids)
        with pytest.raises(
            InputError, match=r"'padding' has fractions, the module takes torch\.bool"
        ):
            device.load(again)(types, padding.float() / 2, ids)
        with pytest.raises(InputError, match="'ids' is given twice"):
            device.load(again)(types, padding, ids, ids=ids)


class Patches(nn.Module):
    """A picture's patches behind a class token, with positions: what a ViT begins with."""

    def __init__(self, project: bool) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH) if project else nn.Identity()
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, TOKENS + 1, WIDTH))
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.project(x)], 1) + self.places
        x = x + self.linear(attend(self.norm(x), None))
        return self.head(x[:, 0])


@pytest.mark.parametrize("project", [False, True])
def test_a_class_token_in_front(project: bool) -> None:
    torch.manual_seed(0)
    module = Patches(project).eval()
    data = [(torch.randn(3, TOKENS, WIDTH),) for _ in range(8)]
    program = compile_module(module, data[0], "tiny", data)
    assert program.graph.tokens == TOKENS + 1
    x = torch.randn(3, TOKENS, WIDTH)
    with open_device("golden", config="tiny") as device:
        found, want = device.load(program)(x), module(x)
    assert (found - want).abs().max() < 0.03 * want.abs().max()


# --- what stays refused -----------------------------------------------------------------------


REFUSED = [
    (lambda m, x: m.linear(torch.tanh(m.linear(x))), "tanh"),
    (lambda m, x: x + x[:, :1], "cannot meet all rows"),
    (lambda m, x: m.head(x[:, 1:]), "the host does not compute it"),
    (lambda m, x: m.linear(x * (torch.arange(TOKENS) > 2)[:, None]), "constant per feature"),
    (lambda m, x: x.pow(2).mean(-1), "pow|mean"),
    (lambda m, x: torch.cat([x, x], 1), "only constant rows"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_nothing_else_moves_to_the_host(function, message) -> None:
    class Module(Body):
        def forward(self, ids):
            return function(self, self.norm(self.table(ids)))

    with pytest.raises(UnsupportedOperation, match=message):
        import_module(Module().eval(), (numbers(0),))


@pytest.mark.parametrize("target", ["aten.relu_.default", "aten.from_file.default", "os.system"])
def test_a_file_cannot_call_what_is_no_function(target) -> None:
    graph = HostGraph((HostCall("y", target, (Ref("x"),), {}),), results=(Ref("y"),))
    with pytest.raises(HostError, match="host part calls"):
        graph.after({"x": np.zeros(3)}, ())


def test_a_file_cannot_name_what_is_no_type() -> None:
    call = HostCall("y", "aten._to_copy.default", (Ref("x"),), {"dtype": TorchName("torch.load")})
    with pytest.raises(HostError, match=r"mentions torch\.load"):
        HostGraph((call,), results=(Ref("y"),)).after({"x": np.zeros(3)}, ())
