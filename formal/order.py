"""Follows one word, any one, through what must keep words in order."""

from __future__ import annotations

from typing import Any

from amaranth import Signal, Value

from formal.model import Model

__all__ = ["Follower"]


class Follower:
    """One word that is written in any cycle, and how many words are to be read before it.

    As the word is any word, what holds for it holds for all: it comes out if `ahead` words have
    come out before, so none is lost, doubled or out of order, and with the bits that went in.

    Members
    -------
    inside: words written and not yet read. is_inside: the word is one of them; ahead: how many of
    them are read before it. is_next: it is the one to be read now. value: the word.
    is_possible: the counts agree with each other, for induction.
    """

    def __init__(self, model: Model, write: Any, value: Any, read: Any, most: int, name="word"):
        m = model.m
        choose = model.free(1, f"{name}_choose")
        value = Value.cast(value)
        self.inside = Signal(range(most + 2), name=f"{name}_count")
        self.is_inside = Signal(name=f"{name}_inside")
        self.ahead = Signal(range(most + 2), name=f"{name}_ahead")
        self.value = Signal(len(value), name=f"{name}_value")
        m.d.sync += self.inside.eq(self.inside + write - read)
        with m.If(~self.is_inside):
            m.d.sync += [
                self.is_inside.eq(write & choose),
                self.value.eq(value),
                self.ahead.eq(self.inside - read),
            ]
        with m.Elif(read):
            m.d.sync += [
                self.ahead.eq(self.ahead - 1),
                self.is_inside.eq(self.ahead != 0),
            ]
        self.is_next = self.is_inside & (self.ahead == 0)
        self.is_possible = (self.inside <= most) & (~self.is_inside | (self.ahead < self.inside))
