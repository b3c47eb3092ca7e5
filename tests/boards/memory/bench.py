"""The controller with the behavioural memory, and tests' access to both."""

from __future__ import annotations

from amaranth import Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from boards.memory.pins import SdramPins
from boards.memory.sdram import SdramController
from boards.memory.sdram_part import SdramPart
from hw.dma.axi import Axi4Signature
from sim.sdram import SdramModel, Violation


def small(**changes) -> SdramPart:
    """A part of 16 rows a bank, refreshed as often as a large one and powered up sooner."""
    rows = changes.pop("rows", 16)
    return SdramPart(**{"rows": rows, "retention": rows * 7812.5, "power_up": 2000} | changes)


class SdramBench(wiring.Component):
    """`SdramController` and `SdramModel`, with `pad_cycles` registers between them. A reset is also
    a power-up of the model.

    Members: axi; violations, first_code, refreshes as in the model.
    """

    def __init__(self, part: SdramPart, hz: float, *, data_bytes: int = 4, pad_cycles: int = 0):
        self._pad_cycles = pad_cycles
        self._controller = SdramController(
            part, hz=hz, data_bytes=data_bytes, pad_cycles=pad_cycles
        )
        self._model = SdramModel(part, hz)
        super().__init__(
            {
                "axi": In(Axi4Signature(32, data_bytes)),
                "violations": Out(32),
                "first_code": Out(Violation),
                "refreshes": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = self._controller
        m.submodules.model = model = self._model
        wiring.connect(m, flipped(self.axi), controller.axi)
        m.d.comb += [
            model.off.eq(ResetSignal()),
            self.violations.eq(model.violations),
            self.first_code.eq(model.first_code),
            self.refreshes.eq(model.refreshes),
        ]
        # Half of the registers on the way there, half on the way back.
        there = self._pad_cycles // 2
        for name, member in SdramPins().members.items():
            source, target, cycles = (
                getattr(controller.pins, name),
                getattr(model.pins, name),
                there,
            )
            if member.flow == In:
                source, target, cycles = target, source, self._pad_cycles - there
            for _ in range(cycles):
                delayed = Signal.like(source, reset_less=True)
                m.d.sync += delayed.eq(source)
                source = delayed
            m.d.comb += target.eq(source)
        return m
