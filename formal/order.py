"""What must keep words in order, and what is offered until it is taken."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Signal, Value

from formal.model import Model

__all__ = ["Follower", "stays"]


class Follower:
    """One word that is written in any cycle, and how many words are to be read before it.

    As the word is any word, what holds for it holds for all: it comes out if `ahead` words have
    come out before, so none is lost, doubled or out of order, and with the bits that went in.

    Members
    -------
    inside: words written and not yet read. is_inside: the word is one of them; ahead: how many of
    them are read before it. is_next: it is the one to be read now. value: the word.
    """

    def __init__(self, model: Model, write: Any, value: Any, read: Any, most: int, name="word"):
        self._model, self._name = model, name
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
        possible = (self.inside <= most) & (~self.is_inside | (self.ahead < self.inside))
        model.lemma(f"{name}_counts", possible)

    def lies_in(self, memory: Any, bits: slice = slice(None)) -> None:
        """Lemmas of a queue whose words lie one behind the other in a memory."""
        write, read = self._model.pointers(memory)
        size = len(write)
        kept = self._model.cell(memory, read + self.ahead) == self.value[bits]
        agree = (write - read)[:size] == self.inside[:size]
        self._model.lemma(f"{self._name}_pointers", agree)
        self._model.lemma(f"{self._name}_kept", ~self.is_inside | kept)


def stays(model: Model, valid: Any, ready: Any, *payload: Any) -> Value:
    """What was offered and not taken a cycle ago is still offered, and is the same."""
    offered = model.past(valid & ~ready)
    same = [model.past(value) == Value.cast(value) for value in payload]
    return ~offered | Cat(valid, *same).all()
