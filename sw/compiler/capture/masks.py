"""What an attention mask means, found by executing it.

Libraries build attention masks by many different chains of small operations, from key masks, token
numbers or nothing. Instead of matching the chains, the front end executes the exported nodes and
looks at the result: it must be "key j is visible", with or without causal order. If that is one
of the module's inputs as it is, the input becomes the key mask; else the host computes it for each
call, and looks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Derived, Hidden
from sw.compiler.graph.host import key_mask, seen

__all__ = ["Visibility", "interpret_mask"]

PROBES = 6
MOST_NUMBERS = 64
LARGEST = 1 << 31
SEVERAL = "the mask is not a key mask [batch, tokens], with or without causal order"


@dataclass(frozen=True)
class Visibility:
    """Which keys a query sees: those of the key mask `source`, up to itself if causal."""

    causal: bool
    source: str | None


def interpret_mask(c: Capture, parts: Sequence, shape: tuple[int, int]) -> Visibility | str:
    """The meaning of a mask (all `parts` together), or the reason why it has none.

    parts: constant tensors or `Derived` values, for scores [batch, heads, tokens, tokens];
        `Hidden(part)` is a boolean one that is true where a key is hidden.
    shape: batch and tokens.
    """
    if not parts:
        return Visibility(False, None)
    plain = [part.mask if isinstance(part, Hidden) else part for part in parts]
    hidden = tuple(isinstance(part, Hidden) for part in parts)
    derived = [part for part in plain if isinstance(part, Derived)]
    sources = {node for part in derived for node in _inputs_of(part.node, c.inputs)}

    def execute(values: dict[torch.fx.Node, Tensor]) -> Tensor | str:
        found = [c.execute(p.node, values) if isinstance(p, Derived) else p for p in plain]
        return seen(found, hidden, *shape)

    visible = execute({node: c.examples[node] for node in sources})
    if isinstance(visible, str):
        return visible
    options = [causal for causal in (False, True) if key_mask(visible, causal) is not None]
    if not options:
        return SEVERAL
    if not sources and bool(key_mask(visible, options[0]).all()):
        return Visibility(options[0], None)
    source = next(iter(sources), None)
    plain_mask = len(sources) == 1 and source not in _embedded(c, source)
    if plain_mask and c.inputs[source] == shape:  # pyright: ignore
        probes = [*_probes(source, shape), *_numbered(derived, source, c, shape)]
        for causal in options:
            if all(_agrees(execute, source, keys, causal) for keys in probes):
                return Visibility(causal, source.name)  # pyright: ignore
    causal = options[0] if len(options) == 1 else _decide(execute, c, sources)
    return Visibility(causal, c.host.mask(plain, hidden, causal, shape))


def _probes(source, shape: tuple[int, int]) -> list[Tensor]:
    """Key masks, some with other numbers than 1 where keys are visible if the type has them."""
    generator = torch.Generator().manual_seed(0)
    dtype = source.meta["val"].dtype
    largest = 2 if dtype == torch.bool else 9
    sign = -1 if dtype.is_signed else 1
    found = [torch.ones(shape, dtype=dtype)]
    for number in range(1, PROBES):
        keys = torch.rand(shape, generator=generator) < 0.6
        keys[:, 0] = True  # a query that sees nothing at all is left undefined
        values = torch.randint(1, 2 if number % 2 else largest, shape, generator=generator)
        found.append((keys * values).to(dtype) * (sign if number % 4 == 2 else 1))
    return found


def _numbered(parts: list[Derived], source, c: Capture, shape: tuple[int, int]) -> Iterator[Tensor]:
    """Key masks in which visible keys have a number that the module names, or one beside it: a
    token that it hides, such as `ids != 7`, makes `ids` no mask."""
    if source.meta["val"].dtype == torch.bool:
        return
    numbers: set[int] = set()
    for node in {item for part in parts for item in _above(part.node)}:
        for value in (*node.args, *node.kwargs.values()):
            tensor = c.constants.get(value) if isinstance(value, torch.fx.Node) else None
            if isinstance(tensor, Tensor) and tensor.numel() <= MOST_NUMBERS:
                numbers |= {int(n) for n in tensor.flatten().tolist() if abs(n) < LARGEST}
            elif isinstance(value, int | float) and abs(value) < LARGEST:
                numbers.add(int(value))
    dtype = source.meta["val"].dtype
    least, most = -LARGEST, LARGEST
    if not dtype.is_floating_point:
        least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    beside = {n + step for n in numbers for step in (-1, 0, 1)} - {0}
    for number in sorted(n for n in beside if least <= n <= most)[:MOST_NUMBERS]:
        keys = torch.ones(shape, dtype=dtype)
        keys.flatten()[::2] = number
        yield keys


def _above(node: torch.fx.Node) -> set[torch.fx.Node]:
    """A node and all that it is made of."""
    done: set[torch.fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in done:
            done.add(current)
            stack.extend(current.all_input_nodes)
    return done


def _agrees(execute, source, keys: Tensor, causal: bool) -> bool:
    """Whether the mask of this input is the input itself."""
    try:
        visible = execute({source: keys})
    except (RuntimeError, IndexError):
        return False
    found = None if isinstance(visible, str) else key_mask(visible, causal)
    return found is not None and torch.equal(found, keys.bool())


def _decide(execute, c: Capture, sources: set[torch.fx.Node]) -> bool:
    """Whether masks that these inputs make are causal, where the example does not show it."""
    for fill in (1, 2, 0):
        try:
            values = {node: torch.full_like(c.examples[node], fill) for node in sources}
            visible = execute(values)
        except (RuntimeError, IndexError):
            continue
        if not isinstance(visible, str):
            options = [o for o in (False, True) if key_mask(visible, o) is not None]
            if len(options) == 1:
                return options[0]
    return False


def _embedded(c: Capture, source) -> set[torch.fx.Node]:
    """Inputs that embeddings read: those are token numbers, whatever else they are."""
    found: set[torch.fx.Node] = set()
    for node in source.graph.nodes:
        if node.target is torch.ops.aten.embedding.default:
            found |= _inputs_of(node.args[1], c.inputs)
    return found


def _inputs_of(node: torch.fx.Node, inputs) -> set[torch.fx.Node]:
    return {item for item in _above(node) if item in inputs}
