"""Pictures as inputs: vision transformers of `transformers`, unmodified, and convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from hw.config import PRESETS
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, InputError, UnsupportedOperation
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.reference import feeds_of, run_reference
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import quantise
from tests.sim.rtl import open_pair

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "Dinov2Model": (
        transformers.Dinov2Config(image_size=28, patch_size=7, mlp_ratio=2, **SIZES),
        (1, 3, 14, 21),  # positions are interpolated
    ),
    "ViTModel": (
        transformers.ViTConfig(intermediate_size=64, image_size=16, patch_size=8, **SIZES),
        (2, 3, 16, 16),
    ),
}


def random_model(name: str) -> nn.Module:
    """With weights large enough that attention, class token and scales of layers matter."""
    torch.manual_seed(2)
    model = getattr(transformers, name)(MODELS[name][0]).eval()
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if "lambda" in part:
                parameter.copy_(1 + torch.randn_like(parameter) / 4)
            elif parameter.dim() > 1:
                parameter.mul_(4)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_vision_transformers_on_every_device(name: str, tmp_path) -> None:
    model, shape = random_model(name), MODELS[name][1]
    pictures = [torch.randn(shape) for _ in range(13)]
    graph = quantise(import_module(model, (pictures[0],)), pictures[1:])
    with torch.no_grad():
        want = model(pictures[0]).to_tuple()
    found = run_reference(graph, [pictures[0]])
    assert [tuple(item.shape) for item in found] == [tuple(item.shape) for item in want]
    for got, expected in zip(found, want, strict=True):
        assert np.corrcoef(got.ravel(), expected.numpy().ravel())[0, 1] > 0.998
    path = tmp_path / "vision.weft"
    lower(graph, PRESETS["tiny"]).save(path)
    with open_pair(PRESETS["tiny"]) as pair:
        for device in pair.devices:
            results = device.load(Program.load(path))(pictures[0])
            for got, expected in zip(results, found, strict=True):
                np.testing.assert_array_equal(np.asarray(got), expected, err_msg=device.name)


class Patches(nn.Module):
    def __init__(self, **how: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, **how)  # pyright: ignore
        self.norm = nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x.float()).flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 4, "stride": 4},
        {"kernel_size": 4, "stride": 4, "bias": False},
        {"kernel_size": (4, 3), "stride": (4, 3)},
        {"kernel_size": 5, "stride": 2},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
        {"kernel_size": 3, "stride": 1, "padding": 1},
    ],
    ids=str,
)
def test_a_convolution_is_a_linear_of_patches(how: dict) -> None:
    """Of any stride: patches may overlap, and leave pixels out."""
    torch.manual_seed(4)
    module, picture = Patches(**how).eval(), torch.randn(2, 3, 12, 13)
    graph = import_module(module, (picture,))
    with torch.no_grad():
        want = module(picture).numpy()
    assert graph.host is not None
    feeds = graph.host.before({"x": picture.numpy()})
    rows = {name: value.reshape(-1, value.shape[-1]) for name, value in feeds.items()}
    values = run_float(graph, rows, Rows.uniform(2, graph.tokens))
    np.testing.assert_allclose(values[graph.outputs[0][0]].reshape(want.shape), want, atol=1e-4)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Grouped(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(x, self.first.weight[:3, :1], groups=3)


class Scaled(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x / 255)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Twice, "only a picture that is an input of the module can be convolved"),
        (Grouped, "groups of channels are not supported"),
        (Scaled, "only a convolution reads a picture"),
    ],
)
def test_refusals(kind: type[nn.Module], text: str) -> None:
    with pytest.raises(UnsupportedOperation, match=text):
        import_module(kind().eval(), (torch.randn(1, 3, 8, 8),))


def test_pictures_of_other_shapes_and_values_are_named() -> None:
    module, picture = Patches(kernel_size=4, stride=4).eval(), torch.randn(1, 3, 8, 8)
    graph = quantise(import_module(module, (picture,)), [torch.randn(1, 3, 8, 8)])
    with pytest.raises(InputError, match="holds NaN or infinity"):
        feeds_of(graph, [picture / 0])
    with pytest.raises(InputError, match=r"has shape \(1, 3, 8, 9\), not \(1, 3, 8, 8\)"):
        feeds_of(graph, [torch.zeros(1, 3, 8, 9)])
    with pytest.raises(CompileError, match=r"pictures \[batch, channels, height, width\]"):
        import_module(nn.Flatten(), (torch.zeros(1, 2, 3, 4, 5),))
    with pytest.raises(CompileError, match=r"calibration batch 0: .* holds NaN or infinity"):
        quantise(import_module(module, (picture,)), [picture / 0])
