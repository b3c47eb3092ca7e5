"""A store unit with the memories it reads; the test fills them and competes for their ports."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.dma.axi import Axi4WriteSignature
from hw.dma.store import StoreUnit
from hw.dma.transfer import regions_layout
from hw.interfaces import ReadPort, UnitStatus, WritePort, command_stream
from tests.hw.dma.load_bench import connect_own_ports, scratchpads

__all__ = ["StoreBench"]


class StoreBench(wiring.Component):
    """`NAME_read`, `NAME_write`: the test's own ports, which go before the store unit."""

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        names = ("activation", "weight", "residual")
        self._memories = scratchpads(config, names, readers=2, writers=1)
        members = {
            "i_command": In(command_stream()),
            "axi": Out(Axi4WriteSignature(config.address_bits, config.bus_bytes)),
            "regions": In(regions_layout(config)),
            "status": Out(UnitStatus()),
            "i_halt": In(1),
            "quiet": Out(1),
        }
        for name, memory in self._memories.items():
            members[f"{name}_read"] = In(ReadPort(memory.width))
            members[f"{name}_write"] = In(WritePort(memory.width, memory.granules))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = StoreUnit(self._config)
        wiring.connect(m, wiring.flipped(self.axi), unit.axi)
        wiring.connect(m, wiring.flipped(self.i_command), unit.i_command)
        wiring.connect(m, wiring.flipped(self.status), unit.status)
        m.d.comb += [
            unit.regions.eq(self.regions),
            unit.i_halt.eq(self.i_halt),
            self.quiet.eq(unit.quiet),
        ]
        for name, memory in self._memories.items():
            m.submodules[name] = memory
            connect_own_ports(m, self, name, memory)
            wiring.connect(m, getattr(unit, f"{name}_read"), memory.read_1)
        return m
