"""A load unit with its reader and its memories; the memories also have a port for the test."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.dma.axi import Axi4ReadSignature
from hw.dma.load import LoadUnit
from hw.dma.load_writer import LoadWriter
from hw.dma.reader import Client, Reader
from hw.dma.transfer import regions_layout
from hw.interfaces import ReadPort, UnitStatus, WritePort, command_stream
from hw.isa import Memory
from hw.memory.banks import bank_of
from hw.memory.scratchpad import Scratchpad
from tests.hw.memory.banks import banks_of

__all__ = ["LoadBench", "connect_own_ports", "scratchpads"]


MEMORIES = ("activation", "weight", "residual", "param0", "param1", "mask")


def scratchpads(
    config: AcceleratorConfig, names: Sequence[str], *, readers: int, writers: int
) -> dict[str, Scratchpad]:
    """Memories that commands load, by the name of their ports."""
    c = config
    shapes = {
        "activation": (8 * c.rows, c.activation_words, c.rows // c.lanes),
        "weight": (8 * c.weight_bytes, c.weight_words, c.weight_bytes // c.lanes),
        "residual": (8 * c.residual_pitch, c.residual_words, 1),
        "param0": (8 * c.param_pitch, c.param_words, 1),
        "param1": (8 * c.param_pitch, c.param_words, 1),
        "mask": (c.columns, c.mask_words, 1),
    }
    return {
        name: Scratchpad(
            width,
            depth,
            granules=granules,
            readers=readers,
            writers=writers,
            banks=banks_of(config, Memory[name.upper()]),
            poison_collisions=True,
        )
        for name, (width, depth, granules) in shapes.items()
        if name in names
    }


def connect_own_ports(m: Module, bench: wiring.Component, name: str, memory: Scratchpad) -> None:
    """The test's ports go first. The bench finds out their banks, so that drivers need not."""
    for kind, port in (("read", memory.read_0), ("write", memory.write_0)):
        wiring.connect(m, wiring.flipped(getattr(bench, f"{name}_{kind}")), port)
        m.d.comb += port.bank.eq(bank_of(port.addr, memory.banks))  # the later assignment counts


class LoadBench(wiring.Component):
    """`NAME_read`, `NAME_write`: the test's own ports, which go before the load unit."""

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        self._memories = scratchpads(config, MEMORIES, readers=1, writers=2)
        members = {
            "i_command": In(command_stream()),
            "axi": Out(Axi4ReadSignature(config.address_bits, config.bus_bytes)),
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
        m.submodules.reader = reader = Reader(self._config)
        m.submodules.unit = unit = LoadUnit(self._config)
        m.submodules.writer = writer = LoadWriter(self._config, 1)
        client = Client.LOAD_WEIGHTS
        wiring.connect(m, unit.o, writer.i[0])
        wiring.connect(m, unit.request, reader.request[client])
        wiring.connect(m, reader.data[client], unit.data)
        wiring.connect(m, wiring.flipped(self.axi), reader.axi)
        wiring.connect(m, wiring.flipped(self.i_command), unit.i_command)
        wiring.connect(m, wiring.flipped(self.status), unit.status)
        m.d.comb += [
            unit.regions.eq(self.regions),
            unit.i_halt.eq(self.i_halt),
            unit.written.eq(writer.written),
            unit.waiting.eq(writer.waiting),
            writer.i_halt.eq(self.i_halt),
            reader.i_halt.eq(self.i_halt),
            self.quiet.eq(reader.quiet),
        ]
        for name, memory in self._memories.items():
            m.submodules[name] = memory
            connect_own_ports(m, self, name, memory)
            wiring.connect(m, getattr(writer, f"{name}_write"), memory.write_1)
        return m
