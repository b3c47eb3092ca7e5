"""The parts of a module that its host computes, around what the accelerator computes.

Before: key masks and positions from token numbers, and the like. After: what follows once one row
is left of each sequence, as a classifier on a class token or on a mean. Both are ATen calls of the
exported graph, kept as data and executed by PyTorch, so they mean exactly what they mean there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sw.compiler.errors import InputError, ProgramError
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.rows import as_array

__all__ = ["HostCall", "HostError", "HostGraph", "HostMask", "Ref", "TorchName", "key_mask", "seen"]

HIDDEN = -1e4
"""An additive mask hides a key by at most this; everything above but 0 is not a mask."""

FACTORIES = {"arange", "full", "ones", "zeros", "scalar_tensor", "eye", "tril_indices", "linspace"}
"""Calls without a tensor that a program file may hold; others could reach outside of it."""


class HostError(ProgramError):
    """A program's host part holds a call that PyTorch does not have or that is not a function."""


@dataclass(frozen=True)
class Ref:
    """A value by name: an input, a constant, an earlier call, or `output N` of the accelerator."""

    name: str


@dataclass(frozen=True)
class TorchName:
    """A dtype, layout or memory format (`torch.int64`), or a device (`cpu`)."""

    name: str


@dataclass(frozen=True)
class HostCall:
    """`name = target(*args, **kwargs)`; target as in `aten.ne.Scalar`, or `getitem`."""

    name: str
    target: str
    args: tuple
    kwargs: dict[str, Any]
    place: str = ""


@dataclass(frozen=True)
class HostMask:
    """The key mask `name` [batch, tokens] of an attention, from masks of its scores.

    parts: each boolean, or additive (0 or very negative); `hidden` ones are true where a key is
    hidden. causal: they hide later keys too, which is the attention's own business.
    """

    name: str
    parts: tuple[Ref, ...]
    hidden: tuple[bool, ...]
    causal: bool


@dataclass(frozen=True)
class HostGraph:
    """Calls in order, and what is wanted of them.

    dtypes: of the module's inputs as exported. feeds: what the accelerator's inputs read, in
    place of module inputs. masks: those feeds that are key masks. results: the module's results,
    each a `Ref` or a constant; None: the accelerator's outputs as they are.
    """

    calls: tuple[HostCall, ...] = ()
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    feeds: tuple[FloatInput, ...] = ()
    masks: tuple[HostMask, ...] = ()
    results: tuple | None = None

    def before(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Feeds by name, from the module's inputs by name.

        Raises `InputError` where these inputs make a mask that is no key mask.
        """
        masks = {mask.name: mask for mask in self.masks}
        values = self._run(inputs, self._read_by_feeds())
        feeds = {i.name: values[i.name].numpy() for i in self.feeds if i.name not in masks}
        for item in self.feeds:
            if item.name in masks:
                mask = masks[item.name]
                batch, tokens = item.shape
                parts = [values[part.name] for part in mask.parts]
                found = seen(parts, mask.hidden, batch, tokens)
                keys = found if isinstance(found, str) else key_mask(found, mask.causal)
                if keys is None or isinstance(keys, str):
                    reason = keys or "queries see different keys"
                    raise InputError(f"the attention mask of these inputs: {reason}")
                feeds[item.name] = keys.numpy()
        return feeds

    def after(self, inputs: Mapping[str, Any], outputs: tuple[np.ndarray, ...]) -> tuple:
        """The module's results, from its inputs and the accelerator's outputs."""
        if self.results is None:
            return outputs
        known = {**inputs, **{f"output {i}": value for i, value in enumerate(outputs)}}
        refs = {item.name for item in self.results if isinstance(item, Ref)}
        values = self._run(known, refs)
        return tuple(
            as_array(values[item.name]) if isinstance(item, Ref) else item for item in self.results
        )

    @property
    def names_read(self) -> set[str]:
        """Names that its calls, masks and results mention."""
        parts = [part for mask in self.masks for part in mask.parts]
        calls = [(call.args, call.kwargs) for call in self.calls]
        return set(refs_of([*calls, *parts, *(self.results or ())]))

    def _read_by_feeds(self) -> set[str]:
        masks = {mask.name for mask in self.masks}
        parts = {part.name for mask in self.masks for part in mask.parts}
        return parts | {item.name for item in self.feeds if item.name not in masks}

    @property
    def calls_before(self) -> tuple[HostCall, ...]:
        """Calls in front of the accelerator; some may serve the results too."""
        return self.needed(self._read_by_feeds())

    @property
    def calls_after(self) -> tuple[HostCall, ...]:
        """Calls behind the accelerator."""
        names = {item.name for item in self.results or () if isinstance(item, Ref)}
        return self.needed(names)

    def needed(self, names: set[str]) -> tuple[HostCall, ...]:
        """Calls that these values need, in order."""
        wanted, found = set(names), []
        for call in reversed(self.calls):
            if call.name in wanted:
                found.append(call)
                wanted |= set(refs_of((call.args, call.kwargs)))
        return tuple(reversed(found))

    def _run(self, known: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
        import torch

        values: dict[str, Any] = {}
        for name, value in {**self.constants, **known}.items():
            array = as_array(value)
            tensor = torch.as_tensor(array)
            if name in self.dtypes:
                dtype = getattr(torch, self.dtypes[name])
                whole = dtype.is_floating_point or array.dtype.kind != "f"
                if not whole and (array != np.rint(array)).any():
                    raise InputError(f"input {name!r} has fractions, the module takes {dtype}")
                tensor = tensor.to(dtype)
            values[name] = tensor
        with torch.no_grad():
            for call in self.needed(names):
                args, kwargs = (_resolved(item, values) for item in (call.args, call.kwargs))
                function = _function(call.target)
                try:
                    values[call.name] = function(*args, **kwargs)
                except (RuntimeError, IndexError, ValueError) as error:
                    first = str(error).splitlines()[0]
                    raise InputError(f"{call.target} at {call.place}: {first}") from None
        return values


def refs_of(value: Any) -> list[str]:
    """Names of all values that an argument mentions."""
    if isinstance(value, Ref):
        return [value.name]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [name for item in value for name in refs_of(item)]
    return []


def _resolved(value: Any, values: Mapping[str, Any]) -> Any:
    import torch

    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, TorchName):
        kind, _, name = value.name.rpartition(".")
        found = getattr(torch, name, None) if kind else torch.device("cpu")
        if not isinstance(found, torch.dtype | torch.layout | torch.memory_format | torch.device):
            raise HostError(f"the host part mentions {value.name}, which is no type of PyTorch")
        return found
    if isinstance(value, dict):
        return {key: _resolved(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(item, values) for item in value)
    return value


def _function(target: str) -> Any:
    """The function of a call: only ones that neither change their arguments nor reach outside."""
    import torch

    if target == "getitem":
        return lambda items, index: items[index]
    space, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(torch.ops.aten, name), overload) if space == "aten" else None
    except AttributeError:
        found = None
    if found is None or found._schema.is_mutable:
        raise HostError(f"the host part calls {target}, which is not a function of ATen here")
    tensors = any("Tensor" in str(argument.type) for argument in found._schema.arguments)
    if not tensors and name not in FACTORIES:
        raise HostError(f"the host part calls {target}, which reads no tensor")
    return found


def seen(parts: list[Any], hidden: tuple[bool, ...], batch: int, tokens: int) -> Any:
    """Which keys each query sees, boolean [batch, heads, tokens, tokens], or why not."""
    import torch

    result = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    for part, inverted in zip(parts, hidden, strict=True):
        if part.dtype == torch.bool:
            visible = part
        elif part.is_floating_point() and bool(((part == 0) | (part <= HIDDEN)).all()):
            visible = part == 0
        else:
            return "the mask is not boolean and not 0 or very negative"
        try:
            result = result & (~visible if inverted else visible)
        except RuntimeError:
            return f"the mask's shape {tuple(visible.shape)} does not fit the scores"
    return result


def key_mask(seen: Any, causal: bool) -> Any:
    """The key mask [batch, tokens] of which `seen` consists, with or without causal order, or
    None."""
    import torch

    batch, _, _, tokens = seen.shape
    keys = seen[:, 0, -1]
    expected = keys[:, None, None, :].expand(batch, 1, tokens, tokens)
    if causal:
        expected = expected & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return keys if bool((seen == expected).all()) else None
