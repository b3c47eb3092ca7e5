"""Units broken on purpose: a proof that does not notice proves nothing."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Mutant", "applied"]


@dataclass(frozen=True)
class Mutant:
    """A change of a unit's source that breaks a property.

    kills: the property. old, new: text that stands once in the source of `module`, and what stands
    there instead. The name of a class constant can be changed too, one of a module not.
    """

    kills: str
    module: str
    old: str
    new: str


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The unit is broken inside of the `with`.

    Functions get the code of the changed source and keep who they are, so whoever has imported the
    unit runs the broken one. Raises `ValueError` where the text is not in the source once.
    """
    module = importlib.import_module(mutant.module)
    source = inspect.getsource(module)
    if (count := source.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.module} has {count} times {mutant.old!r}, once is wanted")
    changed = types.ModuleType(module.__name__)
    changed.__package__, changed.__spec__ = module.__package__, module.__spec__
    text = source.replace(mutant.old, mutant.new)
    exec(compile(text, module.__file__ or "", "exec"), changed.__dict__)
    undo = list(_exchange(module, changed, module.__name__))
    if not undo:
        raise ValueError(f"{mutant.module}: {mutant.new!r} changes no function and no constant")
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def _exchange(old: object, new: object, home: str) -> Iterator[tuple[object, str, object]]:
    """Brings the functions and class constants of `new` into `old`; yields what undoes it."""
    for name, value in list(vars(old).items()):
        other = vars(new).get(name)
        if isinstance(value, types.FunctionType) and value.__module__ == home:
            assert isinstance(other, types.FunctionType)
            if value.__code__ != other.__code__:
                yield value, "__code__", value.__code__
                value.__code__ = other.__code__
        elif isinstance(value, type) and value.__module__ == home:
            yield from _exchange(value, other, home)
        elif isinstance(old, type) and isinstance(value, int) and value != other:
            yield old, name, value
            setattr(old, name, other)
