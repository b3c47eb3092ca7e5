"""Sound as input: convolutions over its length, alone and in pairs, and Whisper's encoder."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hw.config import PRESETS
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import UnsupportedOperation
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import quantise
from tests.sim.rtl import open_pair
from tests.sw.speech.random_whisper import BINS, random_whisper

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))


class Convolutions(nn.Module):
    """One or two of them, then a norm of each place."""

    def __init__(self, *convolutions: nn.Conv1d, function=functional.gelu) -> None:
        super().__init__()
        self.convolutions, self.function = nn.ModuleList(convolutions), function
        self.norm = nn.LayerNorm(convolutions[-1].out_channels)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = self.function(convolution(x))
        return self.norm(x.transpose(1, 2))


def _random_convolution(rng: np.random.Generator, inputs: int) -> nn.Conv1d:
    kernel = int(rng.integers(1, 5))
    return nn.Conv1d(
        inputs,
        int(rng.integers(2, 9)),
        kernel,
        stride=int(rng.integers(1, 4)),
        padding=int(rng.integers(0, kernel + 1)),
        dilation=int(rng.integers(1, 3)),
        bias=bool(rng.integers(2)),
    )


def _float(graph: FloatGraph, x: Tensor) -> np.ndarray:
    assert graph.host is not None
    ((name, shape),) = graph.outputs
    feeds = graph.host.before({graph.inputs[0].name: x.numpy()})
    rows = {n: value.reshape(-1, value.shape[-1]) for n, value in feeds.items()}
    return run_float(graph, rows, Rows.uniform(graph.batch, graph.tokens))[name].reshape(shape)


@pytest.mark.parametrize("number", range(12))
def test_random_convolutions_are_pytorchs(number):
    rng = np.random.default_rng([SEED, number])
    print(f"WEFT_TEST_SEED={SEED}")
    torch.manual_seed(number)
    channels = int(rng.integers(1, 6))
    first = _random_convolution(rng, channels)
    parts = [first, _random_convolution(rng, first.out_channels)][: 1 + (number % 3 > 0)]
    if first.bias is not None:
        first.bias.data.mul_(20)  # what padding must not have
    function = [functional.gelu, functional.relu][number % 2]
    module = Convolutions(*parts, function=function).eval()
    x = torch.randn(int(rng.integers(1, 3)), channels, int(rng.integers(12, 40)))
    with torch.no_grad():
        wanted = module(x).numpy()
    found = _float(import_module(module, (x,)), x)
    np.testing.assert_allclose(found, wanted, atol=2e-4, rtol=1e-4)


def test_whispers_encoder_as_it_is():
    """An unmodified encoder, on every device; and integers are near float."""
    rng = np.random.default_rng(SEED)
    encoder = random_whisper(rng, 13).get_encoder()
    heard = [
        torch.from_numpy(rng.uniform(-1, 1.5, (1, BINS, 26)).astype(np.float32)) for _ in range(4)
    ]
    exact = import_module(encoder, (heard[0],), outputs=("last_hidden_state",))
    with torch.no_grad():
        wanted = encoder(heard[0]).last_hidden_state.numpy()
    np.testing.assert_allclose(_float(exact, heard[0]), wanted, atol=2e-4, rtol=1e-4)
    graph = quantise(exact, heard)
    (reference,) = run_reference(graph, (heard[0],))
    assert np.corrcoef(reference.ravel(), wanted.ravel())[0, 1] > 0.995
    program = lower(graph, PRESETS["tiny"])
    with open_pair(PRESETS["tiny"]) as pair:
        for device in pair.devices:
            np.testing.assert_array_equal(device.load(program)(heard[0].numpy()), reference)


def test_a_file_holds_the_host_part(tmp_path):
    torch.manual_seed(1)
    module = Convolutions(nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 6, 3, 2, 1)).eval()
    x = torch.randn(1, 3, 20)
    program = lower(quantise(import_module(module, (x,)), [(x,)]), "tiny")
    program.save(tmp_path / "sound.weft")
    again = Program.load(tmp_path / "sound.weft")
    np.testing.assert_array_equal(again.prepare_inputs(x), program.prepare_inputs(x))


class Other(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.third, self.linear = nn.Conv1d(4, 4, 1), nn.Linear(4, 4)
        self.grouped = nn.Conv1d(3, 3, 3, groups=3)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, x)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (lambda m, x: m.grouped(x), "groups of channels"),
        (lambda m, x: m.first(x + 1), "only an input of the module"),
        (lambda m, x: m.first(x)[:, :3] + x, "only convolutions read sound"),
        (
            lambda m, x: m.third(torch.relu(m.second(torch.relu(m.first(x))))),
            "only an input of the module",
        ),
        (lambda m, x: m.second(m.linear(m.first(x).mT).mT), "only an input of the module"),
        (lambda m, x: m.second(torch.sigmoid(m.first(x))), "conv1d|sigmoid"),
    ],
)
def test_what_is_refused_is_named(what, reason):
    with pytest.raises(UnsupportedOperation, match=reason) as error:
        import_module(Other(what).eval(), (torch.randn(1, 3, 9),))
    assert "\n" not in str(error.value).split(", File")[0]
