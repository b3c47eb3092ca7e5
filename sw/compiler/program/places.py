"""Where the host writes inputs and finds outputs in the IO region."""

from __future__ import annotations

from dataclasses import dataclass, field

from sw.compiler.stream.layout import Form

__all__ = ["InputPlace", "OutputPlace"]


@dataclass(frozen=True)
class InputPlace:
    """Where the host writes one `QuantInput` in the IO region.

    forms: offset of each form of a tensor, padded for `heads` heads. masks: offset for each
    size of key block, for a mask.
    """

    name: str
    heads: int = 0
    forms: dict[Form, int] = field(default_factory=dict)
    masks: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputPlace:
    """Where the host finds one output in the IO region."""

    name: str
    heads: int
    form: Form
    offset: int
