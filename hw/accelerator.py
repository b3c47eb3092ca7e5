"""The accelerator: registers, run state and counters around a core."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.config import AcceleratorConfig
from hw.control.counters import Counters
from hw.control.csr import ControlRegisters
from hw.control.sequencer import Sequencer
from hw.control.stalls import MATRIX_COUNTERS
from hw.core import ERROR_SOURCES, Core, TraceSignature
from hw.dma.axi import Axi4Signature, AxiLiteSignature, connect_read, connect_write
from hw.registers import ACTIVITY, COUNTERS

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """A transformer accelerator between an AXI4 memory and an AXI4-Lite driver.

    The driver opens DMA windows, sets the length of the program that lies at the start of region
    PROGRAM, and writes CONTROL; see `hw/registers.py`, and `hw/isa.py` for programs.

    Flow control: AXI4 with one ID and 16 bursts (configuration) outstanding in each direction;
    bursts are INCR, of whole beats, and stay within aligned blocks of `burst_bytes`.

    Parameters
    ----------
    config: sizes. poison_collisions: see `hw.memory.scratchpad.Scratchpad`; for tests.

    Members
    -------
    m_axi: AXI4 master. s_axil: AXI4-Lite slave. interrupt: level, the program ended.
    trace: one-cycle pulses, see `TraceSignature`.
    """

    def __init__(self, config: AcceleratorConfig, *, poison_collisions: bool = False):
        self.config = config
        self._poison = poison_collisions
        super().__init__(
            {
                "m_axi": Out(Axi4Signature(config.address_bits, config.bus_bytes)),
                "s_axil": In(AxiLiteSignature()),
                "interrupt": Out(1),
                "trace": Out(TraceSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = ControlRegisters(self.config)
        m.submodules.sequencer = sequencer = Sequencer(ERROR_SOURCES)
        m.submodules.counters = counters = Counters(len(COUNTERS))
        m.submodules.core = core = Core(self.config, poison_collisions=self._poison)

        wiring.connect(m, wiring.flipped(self.s_axil), registers.s_axil)
        wiring.connect(m, core.trace, wiring.flipped(self.trace))
        connect_read(m, self.m_axi, core.m_axi)
        connect_write(m, self.m_axi, core.m_axi)
        if self.config.decoder:
            wiring.connect(m, registers.registers, core.registers)
        m.d.comb += [
            self.interrupt.eq(registers.o_interrupt),
            core.regions.eq(registers.o_regions),
            core.i_commands.eq(registers.o_program_commands),
            core.i_reset.eq(sequencer.o_core_reset),
            core.i_halt.eq(sequencer.o_halt),
            sequencer.i_start.eq(registers.o_start),
            sequencer.i_reset.eq(registers.o_reset),
            sequencer.i_unreachable.eq(registers.o_unreachable),
            sequencer.i_done.eq(core.o_done),
            sequencer.i_bus_busy.eq(core.o_bus_busy),
            registers.i_state.eq(sequencer.o_state),
            registers.i_code.eq(sequencer.o_code),
            registers.i_index.eq(sequencer.o_index),
            registers.i_finished.eq(sequencer.o_finished),
            counters.i_read.eq(registers.o_counter_read),
            counters.i_select.eq(registers.o_counter_select),
            registers.i_counter_valid.eq(counters.o_valid),
            registers.i_counter_value.eq(counters.o_value),
        ]
        for i in range(ERROR_SOURCES):
            m.d.comb += sequencer.error[i].eq(core.error[i])

        # Events are decided late in a cycle. They and the clear are counted in the next, all of
        # them, so that what adds up still does.
        m.d.sync += counters.i_clear.eq(sequencer.o_clear)
        for i, name in enumerate(COUNTERS):
            if name == "cycles":
                event = 1
            elif name in MATRIX_COUNTERS:
                event = core.events.matrix[MATRIX_COUNTERS.index(name)]
            else:
                event = getattr(core.events, name)
            m.d.sync += counters.i_event[i].eq(sequencer.o_running & event)
        if self.config.sleep:
            self._count_activity(m, registers, sequencer, core)
        return m

    def _count_activity(self, m: Module, registers, sequencer, core) -> None:
        m.submodules.counters_of_activity = counters = Counters(1 << ceil_log2(len(ACTIVITY)))
        m.d.comb += [
            counters.i_read.eq(registers.o_activity_read),
            counters.i_select.eq(registers.o_activity_select),
            registers.i_activity_valid.eq(counters.o_valid),
            registers.i_activity_value.eq(counters.o_value),
        ]
        m.d.sync += counters.i_clear.eq(sequencer.o_clear)
        for i, name in enumerate(ACTIVITY):
            m.d.sync += counters.i_event[i].eq(sequencer.o_running & core.activity[name])
