"""Adapters as `peft` builds them: merged where that is exact, beside the linear where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from hw.config import PRESETS
from sw.compiler.capture.frontend import import_module
from sw.compiler.compile import compile_module
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatAdd, FloatGraph, FloatLinear
from sw.compiler.quantise import given_formats
from sw.compiler.quantise.calibration import calibration_rows
from tests.sw.compiler.encoders import Encoder, Layer, batches

TINY = PRESETS["tiny"]


class Lora(nn.Module):
    """A linear with low-rank adapters by name, as `peft.tuners.lora.Linear` computes them."""

    def __init__(self, base: nn.Linear, rank: int, names: tuple[str, ...], bias: bool) -> None:
        super().__init__()
        self.base_layer, inputs, outputs = base, base.in_features, base.out_features
        self.lora_A = nn.ModuleDict({n: nn.Linear(inputs, rank, bias=bias) for n in names})
        self.lora_B = nn.ModuleDict({n: nn.Linear(rank, outputs, bias=bias) for n in names})
        self.lora_dropout, self.scaling = nn.Dropout(0.1), dict.fromkeys(names, 1.7)

    def forward(self, x: Tensor) -> Tensor:
        result = self.base_layer(x)
        for name, down in self.lora_A.items():
            up = self.lora_B[name]
            result = result + up(down(self.lora_dropout(x))) * self.scaling[name]
        return result


def adapted(names: tuple[str, ...], *, rank: int = 3, bias: bool = False) -> Encoder:
    """An encoder of 32 features with adapters on all linears."""
    module = Encoder(1, 1, 32, 4, 8, 48)
    for layer in module.children():
        for name, linear in list(layer.named_children()):
            if isinstance(linear, nn.Linear):
                setattr(layer, name, Lora(linear, rank, names, bias))
    return module.eval()


def outputs(graph: FloatGraph, batch: tuple[Tensor, ...]) -> np.ndarray:
    feeds, rows = calibration_rows(graph, [batch])
    return run_float(graph, feeds, rows)[graph.outputs[0][0]]


def linears(graph: FloatGraph) -> list[FloatLinear]:
    return [op for op in graph.ops if isinstance(op, FloatLinear)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("names", [("default",), ("one", "two")])
def test_merged(names: tuple[str, ...], bias: bool) -> None:
    """Shapes, cycles and results are those of the module without adapters, weights merged."""
    module, data = adapted(names, bias=bias), batches(2, 6, 9, 32)
    graph = import_module(module, data[0])
    plain = import_module(Encoder(1, 1, 32, 4, 8, 48), data[0])
    assert [op.weight.shape for op in linears(graph)] == [op.weight.shape for op in linears(plain)]
    assert linears(graph)[0].place.startswith("0.query.base_layer (Linear)")
    exact = module(*data[3]).detach().reshape(-1, 32).numpy()
    assert np.abs(outputs(graph, data[3]) - exact).max() < 1e-4
    assert np.abs(outputs(plain, data[3]) - exact).max() > 0.1, "adapters that do nothing"
    cycles = [
        compile_module(m, data[0], TINY, data).estimated_cycles
        for m in (module, Encoder(1, 1, 32, 4, 8, 48))
    ]
    assert cycles[0] == cycles[1]


def test_beside_sparse_weights() -> None:
    """2:4 weights stay so: the adapter is two linears and a sum, and the results are right."""
    module, data = adapted(("default",)), batches(2, 6, 9, 32)
    (layer,) = module.children()
    up = layer.get_submodule("up.base_layer")
    assert isinstance(up, nn.Linear)
    with torch.no_grad():
        up.weight[:, [1, 2]] = 0
        up.weight.view(48, 8, 4)[:, :, 2:] = 0
    graph = import_module(module, data[0])
    assert sorted(len(op.weight) for op in linears(graph)) == [3, 32, 32, 32, 32, 32, 48, 48]
    exact = module(*data[3]).detach().reshape(-1, 32).numpy()
    assert np.abs(outputs(graph, data[3]) - exact).max() < 1e-4
    assert [(place.partition(" ")[0], f.name) for place, f in given_formats(graph).items()] == [
        ("0.up.base_layer", "2:4 int8")
    ]
    assert compile_module(module, data[0], TINY, data).estimated_cycles > 0


class Read(nn.Module):
    """The adapter's inner values are a result too; a branch that is wide is no adapter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.down, self.up = Layer(8, 2, 4, 12), nn.Linear(8, 2), nn.Linear(2, 8)
        self.wide, self.back = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        small = self.down(x)
        y = self.layer.out(x) + self.up(small)
        return y + self.back(self.wide(y)), small


def test_what_is_no_adapter() -> None:
    data = batches(3, 2, 6, 8)
    module = Read().eval()
    graph = import_module(module, data[0])
    assert len(linears(graph)) == 5 and sum(isinstance(op, FloatAdd) for op in graph.ops) == 2
    exact = module(*data[1])[0].detach().reshape(-1, 8).numpy()
    assert np.abs(outputs(graph, data[1]) - exact).max() < 1e-4


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_of_peft() -> None:
    """The library's own modules, around a BERT."""
    peft = pytest.importorskip("peft", reason="needs peft")
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    bert = BertModel(BertConfig(**sizes, intermediate_size=48, vocab_size=50), False).eval()
    names = ["query", "value", "dense"]
    options = peft.LoraConfig(r=3, target_modules=names, init_lora_weights=False)
    module = peft.get_peft_model(bert, options).eval()
    example, output = {"input_ids": torch.arange(9)[None]}, ("last_hidden_state",)
    graph = import_module(module, example, outputs=output)
    whole = import_module(module.merge_and_unload(), example, outputs=output)
    assert len(linears(graph)) == len(linears(whole)) == 6
    for a, b in zip(linears(graph), linears(whole), strict=True):
        assert np.allclose(a.weight, b.weight, atol=1e-6)
