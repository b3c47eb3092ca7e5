"""Names of the integer tensors of a float value."""

from __future__ import annotations

__all__ = ["low_name", "narrow_name", "value_name", "wide_name"]


def wide_name(value: str) -> str:
    """Its INT16 tensor."""
    return f"{value}.16"


def narrow_name(value: str) -> str:
    """Its INT8 tensor, or its high bytes."""
    return f"{value}.8"


def low_name(value: str) -> str:
    """Its low bytes, where linears read 16 bits of it."""
    return f"{value}.8.low"


def value_name(tensor: str) -> str:
    """The value that a tensor is of."""
    return tensor.removesuffix(".low").removesuffix(".16").removesuffix(".8")
