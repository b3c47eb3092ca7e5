"""A unit, all that may happen around it, and what must hold: one model for the proof engines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring

from formal.inside import Insides

__all__ = ["Model"]


class History:
    """A value and its copies of the cycles before, with its sign; each of them exists once."""

    def __init__(self, model: Model, value: Any):
        self._model = model
        self._values = [Value.cast(value)]

    def __getitem__(self, cycles: int) -> Value:
        while len(self._values) <= cycles:
            self._values.append(self._model.past(self._values[-1]))
        return self._values[cycles]


class Model(Elaboratable):
    """Collects free inputs, assumptions and properties around units, in a module `m`.

    The reset is a free input too: every proof covers resets at any time. Registers that no reset
    touches and memories start at 0 and keep what they hold, as in the hardware.

    A cycle counts as long as every assumption has held up to and in it: what comes after a broken
    promise, a reset included, is nobody's claim.

    Members
    -------
    m: the module, for what observes the units.
    properties, lemmas: names, in the order in which they were stated.
    """

    def __init__(self):
        self.m = Module()
        self._domain = ClockDomain("sync")
        self.m.domains += self._domain
        self._inputs: list[Value] = []
        self._assumed: dict[str, Signal] = {}
        self._stated: dict[str, Signal] = {}
        self._insides = Insides()
        self.properties: list[str] = []
        self.lemmas: list[str] = []

    # --- what is around ----------------------------------------------------------------------

    def free(self, shape: Any, name: str) -> Any:
        """A signal that has any value in each cycle."""
        signal = Signal(shape, name=name)
        self._inputs.append(Value.cast(signal))
        return signal

    def constant(self, shape: Any, name: str) -> Any:
        """A signal that has any value and keeps it until a reset."""
        first = self.free(shape, f"{name}_first")
        kept, known = Signal(shape, name=f"{name}_kept"), Signal(name=f"{name}_known")
        result = Signal(shape, name=name)
        self.m.d.sync += [known.eq(1), kept.eq(result)]
        self.m.d.comb += Value.cast(result).eq(Mux(known, kept, first))
        return result

    def drive(self, component: Any, *names: str) -> None:
        """Lets inputs of a component have any value: these members, or all of them."""
        for path, member, value in component.signature.flatten(component):
            if member.flow == wiring.In and (not names or path[0] in names):
                self.drive_signals(**{"_".join(map(str, path)): value})

    def drive_signals(self, **signals: Any) -> None:
        """Lets signals have any value."""
        for name, signal in signals.items():
            signal = Value.cast(signal)
            self.m.d.comb += signal.eq(self.free(signal.shape(), name))

    def assume(self, name: str, condition: Any) -> None:
        """What the surroundings promise in every cycle."""
        self._assumed[name] = self._named(f"assume_{name}", condition)

    # --- the unit ----------------------------------------------------------------------------

    def unit(self, component: Any, name: str = "unit") -> Any:
        """Adds a component and returns it."""
        self.m.submodules[name] = self._insides.elaborated(component)
        return component

    def inside(self, component: Any) -> SimpleNamespace:
        """The local variables of the `elaborate` of a component, or of a part of it, for lemmas."""
        return self._insides.of(component)

    def signal(self, component: Any, name: str) -> Signal:
        """A signal inside of a unit by its own name, where a loop makes several."""
        return self._insides.signal(component, name)

    def cell(self, memory: Any, address: Any) -> Signal:
        """What a memory inside of a unit holds at an address."""
        place, data = self._insides.read_port(memory)
        self.m.d.comb += place.eq(address)
        return data

    def pointers(self, memory: Any) -> tuple[Value, Value]:
        """The addresses of a memory's first write port and first read port."""
        return self._insides.pointers(memory)

    # --- what must hold ----------------------------------------------------------------------

    def prove(self, name: str, condition: Any) -> None:
        """A property: what must hold in every cycle."""
        self._state(name, condition)
        self.properties.append(name)

    def lemma(self, name: str, condition: Any) -> None:
        """A property that helps to prove the others by induction, and means nothing by itself."""
        self._state(name, condition)
        self.lemmas.append(name)

    def past(self, value: Any) -> Signal:
        """The value of a cycle ago; 0 after a reset."""
        value = Value.cast(value)
        result = Signal(value.shape(), name="past")
        self.m.d.sync += result.eq(value)
        return result

    def history(self, value: Any) -> History:
        """The values of the cycles before: `history[k]` is that of k cycles ago."""
        return History(self, value)

    def _state(self, name: str, condition: Any) -> None:
        if name in self._stated:
            raise ValueError(f"two properties are called {name!r}")
        self._stated[name] = self._named(f"state_{name}", condition)

    def _named(self, name: str, condition: Any) -> Signal:
        signal = Signal(name=name)
        self.m.d.comb += signal.eq(condition)
        return signal

    # --- what engines read -------------------------------------------------------------------

    def elaborate(self, platform: Any) -> Module:
        return self.m

    def rtlil(self, names: list[str], steps: int = 0) -> str:
        """The module `top`: free inputs, and the output `fails`. Its first bit is 1 where one of
        the properties does not hold while all assumptions have held.

        With `steps`, each property has a bit too, behind that one: 1 where it does not hold though
        all of them held in so many cycles before.
        """
        broken, counts = Signal(name="broken", reset_less=True), Signal(name="counts")
        holds = Cat(self._stated[name] for name in names)
        self.m.d.comb += counts.eq(Cat(self._assumed.values()).all() & ~broken)
        with self.m.If(~counts):
            self.m.d.sync += broken.eq(1)
        bits = [counts & ~holds.all()]
        if steps:
            # No reset touches these, for it must lead to states where all properties hold.
            stood = [Signal(name=f"stood_{k}", reset_less=True) for k in range(steps)]
            self.m.d.sync += Cat(stood).eq(Cat(holds.all(), *stood[:-1]))
            bits += [counts & ~hold & Cat(stood).all() for hold in holds]
        fails = Signal(len(bits), name="fails")
        self.m.d.comb += fails.eq(Cat(bits))
        ports = [self._domain.clk, self._domain.rst, *self._inputs, fails]
        return rtlil.convert(self, name="top", ports=ports, emit_src=False)
