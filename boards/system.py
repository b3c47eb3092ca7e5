"""What every board has in common: accelerator, memory and host link, without a vendor's cells."""

from __future__ import annotations

from amaranth import DomainRenamer, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.buffer import AxiBuffer
from boards.link.host_link import HostLink
from boards.memory.arbiter import AxiArbiter
from boards.memory.crossing import AxiCrossing
from boards.memory.pins import SdramPins
from boards.memory.ram import AxiRam
from boards.memory.sdram import SdramController
from boards.memory.sdram_part import SdramPart
from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig, ConfigError
from hw.dma.axi import connect_read, connect_write

__all__ = ["System"]

ADDRESS_BITS = 32


class System(wiring.Component):
    """An accelerator that shares a memory with a host at the end of a serial line.

    The link's accesses take turns with the accelerator's, burst by burst. Everything but an SDRAM
    has the clock of domain `sync`; an SDRAM and its controller have one of their own, of domain
    `memory`, since they can be faster than a large array and are what most programs wait for.

    Parameters
    ----------
    config: of the accelerator; its `bus_bytes` is the width of everything.
    memory: an SDRAM part outside, or bytes of block RAM.
    hz: clock frequency. memory_hz: of an SDRAM. baud: of the line, at most a quarter of `hz`.
    pad_cycles: see `SdramController`. buffer_bytes: see `HostLink`.

    Members
    -------
    rx, tx: serial line. interrupt: the accelerator's. sdram: pins of the SDRAM, if there is one.

    Raises `hw.config.ConfigError` for a configuration that does not fit the memory's port.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        memory: SdramPart | int,
        *,
        hz: float = 100e6,
        memory_hz: float = 100e6,
        baud: float = 3e6,
        pad_cycles: int = 0,
        buffer_bytes: int = 2048,
    ):
        if config.address_bits > ADDRESS_BITS:
            raise ConfigError(
                f"configuration {config.name!r}: boards have {ADDRESS_BITS} address bits, "
                f"not {config.address_bits}"
            )
        self.config = config
        self.clocks_per_bit = round(hz / baud)
        data_bytes = config.bus_bytes
        ports = {"rx": In(1), "tx": Out(1), "interrupt": Out(1)}
        if isinstance(memory, SdramPart):
            self._memory = SdramController(
                memory, hz=memory_hz, data_bytes=data_bytes, pad_cycles=pad_cycles
            )
            self.memory_bytes = memory.bytes
            ports["sdram"] = Out(SdramPins())
        else:
            self._memory = AxiRam(memory, data_bytes)
            self.memory_bytes = memory
        self._link = HostLink(
            self.clocks_per_bit,
            memory_bytes=self.memory_bytes,
            data_bytes=data_bytes,
            buffer_bytes=buffer_bytes,
        )
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = Accelerator(self.config)
        m.submodules.link = link = self._link
        m.submodules.arbiter = arbiter = AxiArbiter(self.config.bus_bytes)
        m.submodules.arbiter_buffer = buffer = AxiBuffer(self.config.bus_bytes)
        memory = self._memory
        connect_read(m, arbiter.a, accelerator.m_axi)
        connect_write(m, arbiter.a, accelerator.m_axi)
        wiring.connect(m, arbiter.b, link.m_axi)
        wiring.connect(m, arbiter.out, buffer.i)
        wiring.connect(m, link.m_axil, accelerator.s_axil)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            link.interrupt.eq(accelerator.interrupt),
            self.interrupt.eq(accelerator.interrupt),
        ]
        if isinstance(memory, SdramController):
            m.submodules.crossing = crossing = AxiCrossing(self.config.bus_bytes)
            m.submodules.memory = DomainRenamer("memory")(memory)
            wiring.connect(m, buffer.o, crossing.i)
            wiring.connect(m, crossing.o, memory.axi)
            wiring.connect(m, memory.pins, wiring.flipped(self.sdram))
        else:
            m.submodules.memory = memory
            wiring.connect(m, buffer.o, memory.axi)
        return m
