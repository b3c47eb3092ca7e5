"""Modules and programs that torchao quantised: its integers are compiled as they are."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram, export

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, UnsupportedOperation
from sw.compiler.graph.operations import FloatLinear, FloatQuantise
from sw.compiler.graph.reference import run_reference
from tests.sw.compiler.capture.test_prepared import (
    BATCHES,
    Feed,
    example,
    integers_of,
    linears,
    quantised,
)

FOLDER = Path(__file__).parents[4] / "build" / "torchao"
assert FOLDER.is_dir(), "torchao is not there: scripts/setup-tools torchao .venv"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sys.path.append(str(FOLDER))
    from torchao.kernel import intmm
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8StaticActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        quantize_,
    )
    from torchao.quantization.pt2e import disable_observer
    from torchao.quantization.pt2e.quantize_pt2e import (
        convert_pt2e,
        prepare_pt2e,
        prepare_qat_pt2e,
    )
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
sys.path.remove(str(FOLDER))


def quiet_export(module: nn.Module, **options) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(module, (example(),), **options)


def taken_apart(module: nn.Module) -> ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(module, (example(),)).run_decompositions()


def strict(module: nn.Module) -> ExportedProgram:
    return quiet_export(module, strict=True)


FORMS = [lambda module: module, quiet_export, strict]


def check(compiled, module: nn.Module, integers: list, tolerance: float) -> None:
    """`compiled` has these integers, and computes what `module` does."""
    graph = quantised(compiled)
    for op, exact in zip(linears(graph), integers, strict=True):
        np.testing.assert_array_equal(op.weight, exact.numpy())
    x = example(77)
    (found,) = run_reference(graph, (x.numpy(),))
    with torch.no_grad():
        expected = module(x).numpy()
    assert np.abs(found - expected).max() < tolerance


def quantised_by(config, module: nn.Module | None = None) -> nn.Module:
    module = (module or Feed()).eval()
    quantize_(module, config)
    return module


CONFIGS = [Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig()]


PROCESSORS = (False, True)
"""Whether torchao finds VNNI without AMX: it then shifts its operands to unsigned bytes."""


def on(monkeypatch: pytest.MonkeyPatch, vnni: bool) -> None:
    monkeypatch.setattr(intmm, "_cpu_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr(intmm, "_cpu_is_amx_tile_supported", lambda: False)


@pytest.mark.parametrize("vnni", PROCESSORS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("config", CONFIGS)
def test_int8_weights(form, config, vnni, monkeypatch) -> None:
    """Scales of activations come from calibration, hence not the float module's last digit."""
    on(monkeypatch, vnni)
    module = quantised_by(config)
    before = module.up.weight
    check(form(module), module, [module.up.weight.qdata, module.down.weight.qdata], 0.1)
    assert module.up.weight is before


def test_the_float_graph_is_the_quantised_module() -> None:
    module = quantised_by(CONFIGS[0])
    for form in (*FORMS, taken_apart):
        up, down = (op for op in import_module(form(module), (example(),)).ops
                    if isinstance(op, FloatLinear))  # fmt: skip
        for op, linear in ((up, module.up), (down, module.down)):
            exact = linear.weight.dequantize().numpy()
            np.testing.assert_allclose(op.weight, exact, rtol=1e-6)
            np.testing.assert_allclose(op.steps, linear.weight.scale.flatten(), rtol=1e-6)


def test_encoder_layer_in_part_quantised() -> None:
    """torchao leaves the projections of `nn.MultiheadAttention` in float."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    module = quantised_by(CONFIGS[0], layer)
    found = [op for op in import_module(module, (example(),)).ops if isinstance(op, FloatLinear)]
    for op, linear in zip(found[-2:], (layer.linear1, layer.linear2), strict=True):
        np.testing.assert_allclose(op.steps, linear.weight.scale.flatten(), rtol=1e-6)
    assert [op.steps for op in found[:-2]] == [None] * 4


class ByHand(nn.Module):
    """INT8 weights that a module multiplies by their scales itself; offset: their zero point."""

    integers: torch.Tensor
    scale: torch.Tensor

    def __init__(self, *, offset: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        integers = torch.randint(-120, 120, (16, 16), generator=generator, dtype=torch.int8)
        self.register_buffer("integers", integers)
        self.register_buffer("scale", torch.rand(16, 1, generator=generator) / 100)
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.integers.float() - self.offset) * self.scale
        return nn.functional.linear(x, weight)


def test_int8_weights_by_hand() -> None:
    module = ByHand().eval()
    check(module, module, [module.integers], 0.1)
    with pytest.raises(UnsupportedOperation, match="zero points"):
        import_module(ByHand(offset=300).eval(), (example(),))


@pytest.mark.parametrize(
    "config, message",
    [
        (IntxWeightOnlyConfig(torch.int4, granularity=PerGroup(8)), "scales along its inputs"),
        (
            Int8StaticActivationInt8WeightConfig(act_quant_scale=torch.full((1, 1), 0.05)),
            "gives its input a scale",
        ),
    ],
)
def test_other_layouts_are_refused_by_name(config, message: str) -> None:
    with pytest.raises(CompileError, match=rf"parameter 'up.weight'.*{message}.*Int8WeightOnly"):
        import_module(quantised_by(config), (example(),))


def test_dynamic_quantisation_taken_apart_says_what_to_do() -> None:
    with pytest.raises(UnsupportedOperation, match=r"without run_decompositions\(\)"):
        import_module(taken_apart(quantised_by(CONFIGS[1])))


# --- PT2E -------------------------------------------------------------------------------------


def prepared(**options) -> torch.fx.GraphModule:
    """`Feed` with observers that have seen the calibration data."""
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(**options))
    prepare = prepare_qat_pt2e if options.get("is_qat") else prepare_pt2e
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = prepare(export(Feed(), (example(),)).module(), quantizer)
        for batch in BATCHES:
            module(*batch)
    return module


def converted(**options) -> torch.fx.GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert_pt2e(prepared(**options))


@pytest.mark.parametrize("form", [*FORMS, taken_apart])
@pytest.mark.parametrize("dynamic", [False, True])
def test_pt2e(form, dynamic: bool) -> None:
    """Its static steps of activations are kept: a step of the result here and there."""
    module = converted(is_dynamic=dynamic)
    integers = [b for name, b in module.named_buffers() if name.startswith("_frozen")]
    check(form(module), module, integers, 0.1 if dynamic else 0.02)


def test_pt2e_levels_of_activations_are_kept() -> None:
    module = converted()
    wanted = [
        (n.args[1], n.args[2] - 128)
        for n in module.graph.nodes
        if str(n.target) == "quantized_decomposed.quantize_per_tensor.default"
    ]
    graph = import_module(quiet_export(module))
    found = [(op.scale, op.zero) for op in graph.ops if isinstance(op, FloatQuantise)]
    assert found == wanted and len(found) == 2


def test_pt2e_after_training() -> None:
    module = prepared(is_qat=True)
    with pytest.raises(CompileError, match=r"still observes: .*torchao.*disable_observer"):
        import_module(module, (example(),))
    module.apply(disable_observer)
    with pytest.raises(UnsupportedOperation, match="convert_pt2e and export again"):
        import_module(quiet_export(module))
    found = [op for op in import_module(module, (example(),)).ops if isinstance(op, FloatLinear)]
    grids = [part.scale for part in module.modules() if getattr(part, "is_per_channel", False)]
    for op, weight, grid in zip(found, (Feed().up.weight, Feed().down.weight), grids, strict=True):
        assert op.steps is not None
        integers = np.rint(op.weight / op.steps[:, None])
        np.testing.assert_array_equal(integers, integers_of(weight, grid[:, None]))


class Shifted(nn.Module):
    """A dynamic INT8 linear with its operand shifted to unsigned bytes; `off` is taken off."""

    def __init__(self, off: int):
        super().__init__()
        self.off = off
        generator = torch.Generator().manual_seed(3)
        weight = torch.randint(-127, 128, (16, 16), dtype=torch.int8, generator=generator)
        self.register_buffer("weight", weight)

    def forward(self, x):
        scale, zero = torch.ops.torchao.choose_qparams_affine(
            x, "SYMMETRIC", [1, 1, 16], torch.int8, -128, 127, 1e-7, torch.float32, torch.int8
        )
        q = torch.ops.torchao.quantize_affine(x, [1, 1, 16], scale, zero, torch.int8, -128, 127)
        shifted = (q.reshape(-1, 16).to(torch.int32) + 128).to(torch.uint8)
        product = torch._int_mm(shifted, self.weight)
        product = product - self.weight.sum(0, keepdim=True, dtype=torch.int32) * self.off
        return (product.to(torch.float32) * scale.reshape(-1, 1)).reshape(x.shape) * 1e-3


def test_a_shifted_operand_whose_shift_is_not_taken_off_is_refused() -> None:
    ops = import_module(Shifted(128), (example(),)).ops
    (linear,) = (op for op in ops if isinstance(op, FloatLinear))
    signs = np.sign(Shifted(128).weight.numpy().T)
    np.testing.assert_array_equal(np.sign(linear.weight), signs)
    for off in (0, 127, -128):
        with pytest.raises(UnsupportedOperation, match=r"added to the integers"):
            import_module(Shifted(off), (example(),))
