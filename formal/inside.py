"""What a unit keeps to itself: the signals and parts that its `elaborate` gives names to."""

from __future__ import annotations

import sys
from types import FrameType, SimpleNamespace
from typing import Any

from amaranth import Const, Signal, Value
from amaranth.hdl import Fragment
from amaranth.hdl._mem import MemoryInstance

__all__ = ["Insides"]


class Insides:
    """Elaborates components and remembers the local variables of each `elaborate`.

    Lemmas speak of registers that are nobody's business but the unit's. In this way it need not
    say anything about them for the sake of a proof.
    """

    def __init__(self):
        self._locals: dict[int, dict[str, Any]] = {}
        self._fragments: dict[int, Fragment] = {}

    def elaborated(self, component: Any) -> Fragment:
        def watch(frame: FrameType, event: str, _argument: object) -> None:
            if event == "return" and frame.f_code.co_name == "elaborate":
                names = dict(frame.f_locals)
                self._locals[id(names["self"])] = names

        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            fragment = Fragment.get(component, None)
        finally:
            sys.setprofile(before)
        self._fragments[id(component)] = fragment
        return fragment

    def of(self, component: Any) -> SimpleNamespace:
        """The local variables of a component that was elaborated, by name."""
        return SimpleNamespace(**self._locals[id(component)])

    def signal(self, component: Any, name: str) -> Signal:
        """A signal of a component that `elaborated` was given, by the name that it was made with:
        where variables of a loop are not enough."""
        for statements in self._fragments[id(component)].statements.values():
            for statement in statements:
                for signal in statement._lhs_signals():
                    if signal.name == name:
                        return signal
        raise KeyError(f"the unit has no signal {name}")

    def read_port(self, memory: Any) -> tuple[Signal, Signal]:
        """Address and data of one more asynchronous read port of an `amaranth.lib.memory.Memory`;
        who asked for it drives the address."""
        instance = self._instance(memory)
        place = Signal((instance._data.depth - 1).bit_length())
        data = Signal(len(Value.cast(Signal(instance._data.shape))))
        instance.read_port(domain="comb", addr=place, data=data, en=Const(1), transparent_for=())
        return place, data

    def pointers(self, memory: Any) -> tuple[Value, Value]:
        """The addresses of a memory's first write port and first read port."""
        instance = self._instance(memory)
        return instance._write_ports[0]._addr, instance._read_ports[0]._addr

    def _instance(self, memory: Any) -> MemoryInstance:
        return self._locals[id(memory)]["instance"]
