"""Modules that another tool pruned or quantised compile as they are."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrize, prune
from torch.sparse import SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
)

from hw.sparse.formats import WeightFormat
from sw.compiler.capture.frontend import import_module
from sw.compiler.compile import compile_module
from sw.compiler.errors import CompileError, UnsupportedOperation
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatLinear, QuantGraph, QuantLinear
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise import QuantOptions, given_formats, quantise
from sw.driver import open_device

SPARSE = WeightFormat(sparse=True)
ROWS, WIDTH, HIDDEN = 9, 16, 32


class Feed(nn.Module):
    """A feed-forward network with a residual and a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.down(torch.relu(self.up(x))))


def example(seed: int = 1) -> torch.Tensor:
    return torch.randn(1, ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


BATCHES = [(example(seed),) for seed in range(4)]


def quad_mask(weight: torch.Tensor) -> torch.Tensor:
    """The two largest of each four."""
    best = weight.abs().reshape(len(weight), -1, 4).topk(2, dim=2).indices
    mask = torch.zeros(len(weight), weight.shape[1] // 4, 4).scatter(2, best, 1.0)
    return mask.reshape(weight.shape)


def pruned() -> Feed:
    module = Feed()
    with torch.no_grad():
        for linear in (module.up, module.down):
            linear.weight *= quad_mask(linear.weight)
    return module


def quantised(module: nn.Module, formats: dict[str, WeightFormat] | None = None) -> QuantGraph:
    """By default in the formats that are found."""
    graph = import_module(module, (example(),))
    chosen = given_formats(graph) if formats is None else formats
    return quantise(graph, BATCHES, QuantOptions(formats=chosen))


def linears(graph: QuantGraph) -> list[QuantLinear]:
    return [op for op in graph.ops if isinstance(op, QuantLinear)]


def mask_by_prune() -> nn.Module:
    module = Feed()
    for linear in (module.up, module.down):
        prune.custom_from_mask(linear, "weight", quad_mask(linear.weight))
    return module


def mask_by_sparsifier() -> nn.Module:
    module = Feed()
    sparsifier = WeightNormSparsifier(
        sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2
    )
    names = [{"tensor_fqn": f"{name}.weight"} for name in ("up", "down")]
    sparsifier.prepare(module, names)
    sparsifier.step()
    return module


class Mask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def mask_by_parametrisation() -> nn.Module:
    module = Feed()
    for linear in (module.up, module.down):
        parametrize.register_parametrization(linear, "weight", Mask(quad_mask(linear.weight)))
    return module


@pytest.mark.parametrize("prepared", [mask_by_prune, mask_by_sparsifier, mask_by_parametrisation])
def test_masks_of_other_tools_give_the_plain_module(prepared):
    plain = import_module(pruned(), (example(),))
    module = prepared().eval()
    state = copy.deepcopy(module.state_dict())
    graph = import_module(module, (example(),))
    found = [op for op in graph.ops if isinstance(op, FloatLinear)]
    exact = [op for op in plain.ops if isinstance(op, FloatLinear)]
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert set(given_formats(graph).values()) == {SPARSE} and len(given_formats(graph)) == 2


def test_found_formats_keep_the_zeros():
    module = pruned()
    graph = quantised(module)
    for op, linear in zip(linears(graph), (module.up, module.down), strict=True):
        assert op.format == SPARSE
        assert not op.weight[linear.weight.detach().numpy() == 0].any()
    with torch.no_grad():
        module.down.weight[3, 5:8] = 0.5
    assert [op.format for op in linears(quantised(module))] == [
        SPARSE,
        WeightFormat(),
    ]


def compressed(weight: torch.Tensor) -> torch.Tensor:
    values, indices = sparse_semi_structured_from_dense_cutlass(weight)
    return SparseSemiStructuredTensorCUTLASS(
        weight.shape,
        packed=values,
        meta=indices,
        packed_t=None,
        meta_t=None,
        compressed_swizzled_bitmask=None,
    )


@pytest.fixture
def half_module() -> nn.Module:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).half()
    with torch.no_grad():
        module[0].weight *= quad_mask(module[0].weight).half()
    return module


def test_compressed_weights_are_expanded(half_module):
    other = copy.deepcopy(half_module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls them a prototype
        packed = compressed(half_module[0].weight.detach())
    other[0].weight = nn.Parameter(packed, requires_grad=False)
    x = torch.zeros(1, 5, 64, dtype=torch.float16)
    (a,) = (op for op in import_module(half_module, (x,)).ops if isinstance(op, FloatLinear))
    graph = import_module(other, (x,))
    (b,) = (op for op in graph.ops if isinstance(op, FloatLinear))
    np.testing.assert_array_equal(a.weight, b.weight)
    assert list(given_formats(graph).values()) == [SPARSE]
    assert isinstance(other[0].weight, SparseSemiStructuredTensorCUTLASS)


def test_compressed_weights_that_cannot_be_expanded_are_named(half_module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = compressed(half_module[0].weight.detach())
    packed.meta = None
    half_module[0].weight = nn.Parameter(packed, requires_grad=False)
    x = torch.zeros(1, 5, 64, dtype=torch.float16)
    with pytest.raises(CompileError, match=r"parameter '0.weight' holds compressed 2:4 weights"):
        import_module(half_module, (x,))


# --- quantisation-aware training --------------------------------------------------------------


class Trained(nn.Module):
    """`Feed` with fake quantisation by hand; `bits` of the weights, mask after quantisation."""

    steps: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, bits: int = 8, *, masked: bool = False) -> None:
        super().__init__()
        self.feed = pruned() if masked else Feed()
        self.masked = masked
        self.limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        largest = self.feed.up.weight.detach().abs().amax(dim=1)
        self.register_buffer("steps", largest / self.limits[1] * 0.9)  # some saturate
        self.register_buffer("zeros", torch.zeros(HIDDEN, dtype=torch.int32))

    def weight(self) -> torch.Tensor:
        weight = torch.fake_quantize_per_channel_affine(
            self.feed.up.weight, self.steps, self.zeros, 0, *self.limits
        )
        return weight * quad_mask(self.feed.up.weight) if self.masked else weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.fake_quantize_per_tensor_affine(x, 0.031, 117, 0, 255)
        h = torch.relu(nn.functional.linear(y, self.weight(), self.feed.up.bias))
        h = torch.fake_quantize_per_tensor_affine(h, 0.015, -128, -128, 127)
        down = torch.fake_quantize_per_tensor_affine(self.feed.down.weight, 0.002, 0, -127, 127)
        return self.feed.norm(x + nn.functional.linear(h, down, self.feed.down.bias))


def integers_of(weight: torch.Tensor, steps: torch.Tensor) -> np.ndarray:
    return torch.round(weight / steps).clamp(-128, 127).detach().numpy().astype(np.int8)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_integers_are_those_of_training(bits, masked):
    module = Trained(bits, masked=masked).eval()
    graph = quantised(module)
    up, down = linears(graph)
    np.testing.assert_array_equal(up.weight, integers_of(module.weight(), module.steps[:, None]))
    exact = torch.clamp(torch.round(module.feed.down.weight / 0.002), -127, 127)
    np.testing.assert_array_equal(down.weight, exact.detach().numpy())
    assert up.format == WeightFormat(sparse=masked, bits=bits)
    assert down.format == WeightFormat(sparse=masked)
    first, second = graph.tensors[up.x], graph.tensors[down.x]
    np.testing.assert_allclose(first.scale, 0.031)
    np.testing.assert_allclose(first.centre, 0.031 * (128 - 117), rtol=1e-6)
    np.testing.assert_allclose(second.scale, 0.015)
    np.testing.assert_allclose(second.centre, 0.015 * 128, rtol=1e-6)


def run_both(module: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(the module's result, the integers' result) on an input that calibration has not seen."""
    graph = quantised(module)
    x = example(77)
    (found,) = run_reference(graph, (x.numpy(),))
    with torch.no_grad():
        return module(x).numpy(), found


def test_results_are_those_of_training():
    """Up to a step of the hidden layer here and there: sums round elsewhere in PyTorch."""
    exact, found = run_both(Trained().eval())
    assert np.abs(found - exact).max() < 0.02
    assert np.sqrt(np.mean(np.square(found - exact))) < 0.003


def test_the_float_graph_is_the_trained_module():
    module = Trained().eval()
    graph = import_module(module, (example(),))
    x = example(5)
    name = next(op.name for op in graph.ops if type(op).__name__ == "FloatInput")
    values = run_float(graph, {name: x.reshape(ROWS, WIDTH).numpy()}, Rows.uniform(1, ROWS))
    with torch.no_grad():
        exact = module(x).reshape(ROWS, WIDTH).numpy()
    np.testing.assert_allclose(values[graph.outputs[0][0]], exact, atol=1e-5)


class Stubs(nn.Module):
    def __init__(self, quantization) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.begin = quantization.QuantStub()
        self.up, self.relu, self.down = nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 8)
        self.end = quantization.DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.down(self.relu(self.up(self.begin(x)))))


def prepared_by_torch(*, plain: bool) -> nn.Module:
    """A module of `torch.ao.quantization`, trained a little. plain: not the fused kind."""
    from torch.ao import quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        module = Stubs(quantization).train()
        if plain:
            module.qconfig = quantization.QConfig(
                quantization.default_fake_quant, quantization.default_per_channel_weight_fake_quant
            )
        else:
            module.qconfig = quantization.get_default_qat_qconfig("qnnpack")
        module = quantization.prepare_qat(module)
        for batch in BATCHES:
            module(*batch)
    return module.eval()


@pytest.mark.parametrize("plain", [False, True])
def test_modules_of_torch_quantization(plain):
    from torch.ao import quantization

    module = prepared_by_torch(plain=plain)
    with pytest.raises(CompileError, match=r"still observes: .*disable_observer"):
        import_module(module, (example(),))
    module.apply(quantization.disable_observer)
    up, down = linears(quantised(module))
    for op, linear in ((up, module.up), (down, module.down)):
        scale = linear.weight_fake_quant.scale.reshape(-1, 1)
        np.testing.assert_array_equal(op.weight, integers_of(linear.weight, scale))


def test_weights_alone_get_one_input_scale():
    class WeightOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.feed = Feed()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = torch.fake_quantize_per_tensor_affine(self.feed.up.weight, 0.003, 0, -128, 127)
            return nn.functional.linear(self.feed.norm(x), weight, self.feed.up.bias)

    module = WeightOnly().eval()
    graph = quantised(module)
    (op,) = linears(graph)
    np.testing.assert_array_equal(
        op.weight, integers_of(module.feed.up.weight, torch.tensor(0.003))
    )
    assert len(set(graph.tensors[op.x].scale)) == 1


class Wrong(nn.Module):
    """One thing that the accelerator cannot have."""

    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.linear, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("scales", torch.full((WIDTH,), 0.01))
        self.register_buffer("zeros", torch.zeros(WIDTH, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, what = self.linear.weight, self.what
        if what == "zero":
            weight = torch.fake_quantize_per_tensor_affine(weight, 0.01, 3, -128, 127)
        elif what == "inputs":
            weight = torch.fake_quantize_per_channel_affine(
                weight, self.scales * torch.arange(1, WIDTH + 1), self.zeros, 1, -128, 127
            )
        elif what == "changed":
            weight = torch.fake_quantize_per_tensor_affine(weight, 0.01, 0, -128, 127) + 0.003
        elif what == "16 bits":
            x = torch.fake_quantize_per_tensor_affine(x, 0.01, 0, -32768, 32767)
        elif what == "features":
            x = torch.fake_quantize_per_channel_affine(x, self.scales, self.zeros, 2, -128, 127)
        y = nn.functional.linear(x, weight)
        if what == "twice":
            a = torch.fake_quantize_per_tensor_affine(y, 0.05, 0, -128, 127)
            b = torch.fake_quantize_per_tensor_affine(y, 0.06, 0, -128, 127)
            return self.linear(a) + self.other(b)
        if what == "partly":
            a = torch.fake_quantize_per_tensor_affine(y, 0.05, 0, -128, 127)
            return self.linear(a) + self.other(y)
        if what == "attention":
            q = torch.fake_quantize_per_tensor_affine(y, 0.05, 0, -128, 127)
            return nn.functional.scaled_dot_product_attention(q[:, None], q[:, None], q[:, None])
        return y


@pytest.mark.parametrize(
    "what, message",
    [
        ("zero", "zero points of 0"),
        ("inputs", "scales along their inputs"),
        ("changed", "change after their quantisation"),
        ("16 bits", "8 bits, not 65536 levels"),
        ("features", "one scale"),
        ("twice", "two scales"),
        ("partly", "without the fake quantisation"),
        ("attention", "operand of the attention"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(what, message):
    with pytest.raises(CompileError, match=message) as caught:
        quantised(Wrong(what).eval())
    if isinstance(caught.value, UnsupportedOperation):
        assert "Wrong" in caught.value.place
    assert "test_prepared" in str(caught.value)


def test_given_weights_must_fit_the_wanted_format():
    module = Trained().eval()
    graph = import_module(module, (example(),))
    place = next(op.place for op in graph.ops if isinstance(op, FloatLinear))
    with pytest.raises(CompileError, match="int4 cannot hold them"):
        quantised(module, formats={place: WeightFormat(bits=4)})
    with pytest.raises(CompileError, match="not 2:4 sparse"):
        quantised(module, formats={place: SPARSE})


@pytest.mark.parametrize("module", [pruned(), Trained(4, masked=True)])
def test_they_run_on_the_golden_device_in_their_formats(module):
    """By default; the same module dense gives the same integers, and takes more bytes."""
    module = module.eval()
    stored = compile_module(module, (example(),), "tiny", BATCHES)
    dense = compile_module(module, (example(),), "tiny", BATCHES, QuantOptions())
    assert len(stored.constants) < len(dense.constants)
    x = example(77)
    with open_device("golden", config="tiny") as device, torch.no_grad():
        found = np.asarray(device.load(stored)(x))
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=0.1)
