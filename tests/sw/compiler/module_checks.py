"""What must hold for any module given to the compiler: its float graph equals PyTorch, or one
clear line says why not; nothing of the caller's changes."""

from __future__ import annotations

import copy
import re
import tempfile
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils import _pytree as pytree

from hw.config import get_config
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatGraph, FloatInput
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.rows import Rows, as_array
from sw.compiler.lower.lower import lower
from sw.compiler.program.program import Program
from sw.compiler.quantise import quantise
from sw.driver.golden import GoldenDevice

__all__ = ["Case", "check_module"]


class Case(Protocol):
    """A module in eval mode, made for floats of this type, and inputs of one call."""

    @property
    def module(self) -> torch.nn.Module: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def inputs(self, seed: int, /) -> tuple[torch.Tensor, ...]: ...


TOLERANCE = 1e-4
HALF_TOLERANCE = 2**-8
INTEGERS_LOSE = 0.03
"""As in the quantiser's own test of unusual modules."""
SHAKY = 0.01
"""A module that rounding in float changes by more, such as one with a sharp softmax, is not held to
the bound."""
RAW = (
    "Traceback", "RuntimeError", "expected scalar type", "size mismatch", "got mat1",
    "Could not guard", "has no attribute", "must match the size", "<built-in", "is mutated in",
)  # fmt: skip
"""What other libraries' own texts contain."""


def _clear(error: Exception, kinds: tuple[type, ...] = (CompileError,)) -> str:
    text = str(error)
    assert isinstance(error, kinds), f"raw {type(error).__name__}: {text}"
    assert text and "\n" not in text, f"not one line: {text}"
    assert not any(word in text for word in RAW), f"raw text: {text}"
    return text


def eager(module: torch.nn.Module, inputs: tuple) -> object:
    """What a fresh copy returns, on copies of the inputs."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        return pytree.tree_map_only(
            torch.Tensor, torch.clone, module(*(item.clone() for item in inputs))
        )


def _leaves(result: object) -> list:
    return [item for item in pytree.tree_leaves(result) if item is not None]


def _array(value: object) -> np.ndarray:
    return np.asarray(as_array(value))


def _distance(found: list, expected: list) -> float:
    """Largest difference relative to the largest number; infinite where kinds or shapes differ."""
    worst = 0.0 if len(found) == len(expected) else np.inf
    for a, b in zip(found, expected, strict=False):
        if isinstance(b, str | int | float):
            worst = max(worst, 0.0 if a == b else np.inf)
            continue
        a, b = _array(a), _array(b)
        if a.shape != b.shape:
            return np.inf
        if b.dtype.kind != "f":
            worst = max(worst, 0.0 if (a == b).all() else np.inf)
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = gap.max() / max(1.0, np.abs(b).max())
        worst = max(worst, np.inf if np.isnan(gap) else float(gap))
    return worst


def run_float_graph(graph: FloatGraph, inputs: tuple) -> tuple:
    """Results of the float graph and its host part, for inputs in call order."""
    arrays = {item.name: as_array(v) for item, v in zip(graph.inputs, inputs, strict=True)}
    known = dict(arrays)
    if graph.host is not None:
        arrays |= graph.host.before(arrays)
    rows, feeds = graph.batch * graph.tokens, {}
    for item in graph.ops:
        if isinstance(item, FloatInput) and item.kind != "host":
            shape = (-1, item.shape[-1]) if item.kind == "float" else (rows,)
            kind = {"float": np.float32, "mask": bool}.get(item.kind, np.int64)
            feeds[item.name] = arrays[item.name].reshape(shape).astype(kind)
    values = run_float(graph, feeds, Rows.uniform(graph.batch, graph.tokens))
    outputs = tuple(values[name].reshape(shape) for name, shape in graph.outputs)
    return outputs if graph.host is None else graph.host.after(known, outputs)


def _state(module: torch.nn.Module) -> list[object]:
    tensors = [*module.parameters(), *module.buffers()]
    plain = [v for part in module.modules() for v in vars(part).values()]
    tensors += [v for v in plain if isinstance(v, torch.Tensor)]
    simple = [v for v in plain if isinstance(v, bool | int | float | str)]
    return [*(as_array(t).tobytes() for t in tensors), *map(id, tensors), *simple]


def _import(item: Case, inputs: tuple) -> tuple[FloatGraph, list[str]]:
    """(float graph, names of outputs left out)"""
    before = _state(item.module), [as_array(i).tobytes() for i in inputs]
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            graph = import_module(item.module, inputs)
    finally:
        after = _state(item.module), [as_array(i).tobytes() for i in inputs]
        assert before == after, "the caller's module or inputs changed"
    return graph, [str(item.message) for item in seen]


def _without(result: object, left_out: list[str]) -> list:
    """Leaves of a result without the outputs of these names."""
    if isinstance(result, dict):
        result = {key: value for key, value in result.items() if key not in left_out}
        return _leaves(result)
    leaves = pytree.tree_leaves(result)
    return [v for i, v in enumerate(leaves) if v is not None and f"output {i}" not in left_out]


def check_module(item: Case, *, integers: bool = False, program: bool = False) -> str:
    """ "equal", or the text of the error with which the module was refused.

    integers: also quantise, and bound what the integers lose. program: also lower, save, load, run
    on the golden model, and do all of it twice. Raises `AssertionError` for a fault.
    """
    example = item.inputs(1)
    try:
        expected, *_ = [eager(item.module, item.inputs(seed)) for seed in range(1, 7)]
    except IndexError as error:  # token numbers that lead out of a tensor
        return f"fails by itself: {error}"
    same = _distance(_leaves(eager(item.module, example)), _leaves(expected)) == 0
    try:
        graph, warned = _import(item, example)
    except Exception as error:
        return _clear(error)
    assert same, "random numbers became constants"
    left_out = [m[1] for text in warned if (m := re.match(r"output '(.+)' is left out", text))]
    assert not _is_stateful(item, example), "a second call of the module gives something else"
    wide = copy.deepcopy(item.module)
    if item.dtype.itemsize < 4:
        wide = wide.float()
    for seed in (1, 2, 3):
        inputs = _widened(item.inputs(seed))
        want = _without(eager(wide, inputs), left_out)
        try:
            found = list(run_float_graph(graph, inputs))
        except InputError as error:
            assert seed != 1, f"refuses its own example: {error}"
            return "inputs refused: " + _clear(error, (InputError,))
        gap = _distance(found, want)
        halves = any(kind in str(item) for kind in ("half", "float16"))  # rounded on the way
        bound = HALF_TOLERANCE if halves else TOLERANCE
        assert gap < bound, f"differs from PyTorch by {gap:.2g} on inputs {seed}"
    if integers or program:
        _check_integers(item, graph, wide, left_out, program)
    return "equal"


def _widened(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Half-precision inputs in float32, in which such modules are compiled."""
    return tuple(v.float() if v.is_floating_point() and v.itemsize < 4 else v for v in inputs)


def _is_stateful(item: Case, inputs: tuple) -> bool:
    module = copy.deepcopy(item.module)
    with torch.no_grad():
        results = [
            pytree.tree_map_only(torch.Tensor, torch.clone, module(*copy.deepcopy(inputs)))
            for _ in range(2)
        ]
    return _distance(_leaves(results[0]), _leaves(results[1])) > 0


def _lost(found: object, want: object) -> float:
    """Error relative to the values, root mean square."""
    a, b = _array(found).astype(np.float64), _array(want).astype(np.float64)
    return float(np.sqrt(((a - b) ** 2).mean() / max((b**2).mean(), 1e-12)))


def _shaken(wide: torch.nn.Module, inputs: tuple, want: list, left_out: list, seed: int) -> float:
    """How much rounding of inputs and weights to 8 bits changes the float results."""
    generator = torch.Generator().manual_seed(seed)

    def shake(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5
        return x + noise * x.abs().max() / 127

    shaken = copy.deepcopy(wide)
    for parameter in shaken.parameters():
        parameter.data = shake(parameter.data)
    found = _without(eager(shaken, tuple(shake(v) for v in _widened(inputs))), left_out)
    pairs = zip(found, want, strict=True)
    return max(
        _lost(a, b) for a, b in pairs if isinstance(b, torch.Tensor) and b.is_floating_point()
    )


def _check_integers(item: Case, graph: FloatGraph, wide, left_out, program: bool) -> None:
    batches = [item.inputs(seed) for seed in range(1, 7)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantised = quantise(graph, batches)
    except Exception as error:
        _clear(error)
        return
    inputs = item.inputs(1)
    want = _without(eager(wide, _widened(inputs)), left_out)
    found = run_reference(quantised, inputs)
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        if isinstance(b, torch.Tensor) and b.is_floating_point():
            error = _lost(a, b)
            if error >= INTEGERS_LOSE:
                shaken = max(_shaken(wide, inputs, want, left_out, seed) for seed in range(3))
                assert shaken > SHAKY, f"integers lose {error:.3f}, 8 bits in float {shaken:.3f}"
    if not program:
        return
    compiled = lower(quantised, get_config("tiny"))
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "a.weft", Path(folder) / "b.weft"
        compiled.save(path)
        repeated, _ = _import(item, item.inputs(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lower(quantise(repeated, batches), get_config("tiny")).save(again)
        assert path.read_bytes() == again.read_bytes(), "compiling twice gives other bytes"
        loaded = Program.load(path)
    for each in (compiled, loaded):
        result = GoldenDevice(each.config).load(each)(*inputs)
        result = list(result) if isinstance(result, tuple) else [result]
        assert _distance(result, found) == 0, "golden or the file differs from the reference"
