"""Control and status registers on AXI4-Lite, after the map of `hw/registers.py`."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.config import AcceleratorConfig
from hw.dma.axi import AxiLiteSignature
from hw.dma.transfer import regions_layout
from hw.interfaces import INDEX_BITS, RegisterPort
from hw.isa import ISA_VERSION, REGISTER_BITS, REGISTERS, Region
from hw.registers import (
    ACTIVITY,
    COUNTERS,
    ID_VALUE,
    Register,
    State,
    activity_address,
    counter_address,
    region_address,
    register_address,
)

__all__ = ["ControlRegisters"]

DATA_BITS = 32
ADDRESS_BITS = 12
WORD_ADDRESS_BITS = ADDRESS_BITS - 2


def _is_of_commands(address):
    """Whether a word address is that of a register that commands name."""
    bits = exact_log2(REGISTERS)
    return address[bits:] == register_address(0) >> (2 + bits)


class ControlRegisters(wiring.Component):
    """AXI4-Lite slave with every register of `hw.registers`.

    Writes honour byte strobes; only a register that commands name is written as a whole or not at
    all. An address without a register reads 0, and writes to it or to a read-only register change
    nothing; every answer is OKAY. The low two address bits are ignored.

    Latency: a write takes effect 1 cycle after both its address and its data have come; a read
    answers after 3 cycles, of a counter after as long as `Counters` takes. Throughput: one write
    and one read at a time, independently. Flow control: AXI4-Lite.

    Where a 1 was written to a bit of a base that the address does not have, `o_unreachable` is 1
    until all those bits of that register are written 0.

    Regions, program length and interrupt enable are set up by the driver and only change when it
    writes them; a reset of the machine leaves them alone, and clears a pending interrupt.

    Members
    -------
    s_axil: the bus.
    o_start, o_reset: one-cycle requests. i_state, i_code, i_index: for STATUS, ERROR_COMMAND.
    i_finished: one cycle, sets the interrupt. o_interrupt: level, pending and enabled.
    o_regions: the DMA windows. o_unreachable: a base lies beyond the address space, see above.
    o_program_commands: commands in the program.
    o_counter_read, o_counter_select, i_counter_valid, i_counter_value: see `Counters`.
    o_activity_read, .., i_activity_value: with `sleep`, likewise of the counters of activity.
    registers: with `decoder`, the way to those that commands name, see `RegisterPort`.
    """

    def __init__(self, config: AcceleratorConfig):
        self._config = config
        members = {
            "s_axil": In(AxiLiteSignature()),
            "o_start": Out(1),
            "o_reset": Out(1),
            "i_state": In(State),
            "i_code": In(4),
            "i_index": In(INDEX_BITS),
            "i_finished": In(1),
            "o_interrupt": Out(1),
            "o_regions": Out(regions_layout(config)),
            "o_unreachable": Out(1),
            "o_program_commands": Out(32),
            "o_counter_read": Out(1),
            "o_counter_select": Out(range(len(COUNTERS))),
            "i_counter_valid": In(1),
            "i_counter_value": In(64),
        }
        if config.decoder:
            members["registers"] = Out(RegisterPort())
        if config.sleep:
            members |= {
                "o_activity_read": Out(1),
                "o_activity_select": Out(range(len(ACTIVITY))),
                "i_activity_valid": In(1),
                "i_activity_value": In(64),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        pending = Signal()
        enable = Signal()
        m.d.comb += self.o_interrupt.eq(pending & enable)

        # Registers that hold what was written: (byte address, value).
        stored = [(Register.PROGRAM_COMMANDS, self.o_program_commands)]
        stored += [(Register.INTERRUPT_ENABLE, enable)]
        for region in Region:
            address = region_address(region)
            window = self.o_regions[region]
            base = window.base
            stored += [(address, base[:DATA_BITS])]
            if len(base) > DATA_BITS:
                stored += [(address + 4, base[DATA_BITS:])]
            stored += [(address + 8, window.size), (address + 12, window.writable)]

        self._write_channel(m, stored, pending)
        self._read_channel(m, stored, pending)
        return m

    def _write_channel(self, m: Module, stored, pending):
        axi = self.s_axil
        address = Signal(WORD_ADDRESS_BITS)
        word = Signal(DATA_BITS)
        strobe = Signal(DATA_BITS // 8)
        has_address = Signal()
        has_word = Signal()
        m.d.comb += [axi.awready.eq(~has_address), axi.wready.eq(~has_word), axi.bresp.eq(0)]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [address.eq(axi.awaddr[2:]), has_address.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [word.eq(axi.wdata), strobe.eq(axi.wstrb), has_word.eq(1)]

        write = Signal()
        m.d.comb += write.eq(has_address & has_word & ~axi.bvalid)
        # Pulses, a cycle after the write, with its answer.
        m.d.sync += [self.o_start.eq(0), self.o_reset.eq(0)]
        with m.If(write):
            m.d.sync += [has_address.eq(0), has_word.eq(0), axi.bvalid.eq(1)]
        with m.Elif(axi.bvalid & axi.bready):
            m.d.sync += axi.bvalid.eq(0)

        with m.If(write):
            with m.Switch(address):
                for register, value in stored:
                    with m.Case(register >> 2):
                        for byte in range(0, len(value), 8):
                            with m.If(strobe[byte // 8]):
                                part = value[byte : byte + 8]
                                m.d.sync += part.eq(word[byte : byte + 8])
                with m.Case(Register.CONTROL >> 2):
                    m.d.sync += self.o_start.eq(strobe[0] & word[0])
                    m.d.sync += self.o_reset.eq(strobe[0] & word[1])
                    with m.If(strobe[0] & word[1]):
                        m.d.sync += pending.eq(0)
                with m.Case(Register.INTERRUPT >> 2):
                    with m.If(strobe[0] & word[0]):
                        m.d.sync += pending.eq(0)
        # Bits of a base that are not there must not get lost silently.
        present = self._config.address_bits - DATA_BITS
        missing = (word & Cat(bit.replicate(8) for bit in strobe))[present:].any()
        covered = strobe[present // 8 :].all()
        unreachable = Signal(len(Region))
        for region in Region:
            with m.If(write & (address == (region_address(region) + 4) >> 2)):
                m.d.sync += unreachable[region].eq(missing | (unreachable[region] & ~covered))
        m.d.comb += self.o_unreachable.eq(unreachable.any())
        if self._config.decoder:
            target = self.registers.write
            whole = strobe[: -(-REGISTER_BITS // 8)].all()
            stopped = self.i_state != State.RUNNING
            m.d.sync += [
                target.valid.eq(write & _is_of_commands(address) & whole & stopped),
                target.register.eq(address),
                target.value.eq(word),
            ]
        with m.If(self.i_finished):
            m.d.sync += pending.eq(1)
        # Last: a program that ends while the reset is on its way is forgotten too.
        with m.If(self.o_reset):
            m.d.sync += pending.eq(0)

    def _read_channel(self, m: Module, stored, pending):
        axi = self.s_axil
        address = Signal(WORD_ADDRESS_BITS)
        reading = Signal()
        decoded = Signal()
        m.d.comb += [axi.arready.eq(~reading & ~axi.rvalid), axi.rresp.eq(0)]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [address.eq(axi.araddr[2:]), reading.eq(1), decoded.eq(0)]

        status = Signal(16)
        m.d.comb += [status[:2].eq(self.i_state), status[8:].eq(self.i_code)]
        sources = [
            (Register.ID, ID_VALUE),
            (Register.VERSION, ISA_VERSION),
            (Register.FINGERPRINT, self._config.fingerprint()),
            (Register.STATUS, status),
            (Register.ERROR_COMMAND, self.i_index),
            (Register.INTERRUPT, pending),
            *stored,
        ]
        # One cycle finds the register, the next selects its value by a bit of its own.
        values = []
        for register, source in sources:
            here = Signal(name=f"read_{register:03x}")
            m.d.sync += here.eq(address == register >> 2)
            values.append(Mux(here, source, 0))
        if self._config.decoder:
            here = Signal(name="read_registers")
            m.d.sync += here.eq(_is_of_commands(address))
            m.d.comb += self.registers.number.eq(address)
            values.append(Mux(here, self.registers.value, 0))
        counters = [("counter", counter_address(COUNTERS[0]), len(COUNTERS))]
        if self._config.sleep:
            counters.append(("activity", activity_address(ACTIVITY[0]), len(ACTIVITY)))
        there = []  # no counter is asked for that has not answered
        for name, base, count in counters:
            first, value = base >> 3, getattr(self, f"i_{name}_value")
            is_counter = Signal(name=f"is_{name}")
            within = (address[1:] >= first) & (address[1:] < first + count)
            m.d.sync += is_counter.eq(within)
            for half in range(2):
                here = Signal(name=f"read_{name}_{half}")
                m.d.sync += here.eq(within & (address[0] == half))
                values.append(Mux(here, value.word_select(half, DATA_BITS), 0))
            m.d.comb += [
                getattr(self, f"o_{name}_select").eq(address[1:] - first),
                getattr(self, f"o_{name}_read").eq(reading & decoded & is_counter),
            ]
            there.append(~is_counter | getattr(self, f"i_{name}_valid"))
        with m.If(reading):
            m.d.sync += decoded.eq(1)
        with m.If(reading & decoded & reduce(and_, there)):
            m.d.sync += [axi.rdata.eq(reduce(or_, values)), axi.rvalid.eq(1), reading.eq(0)]
        with m.Elif(axi.rvalid & axi.rready):
            m.d.sync += axi.rvalid.eq(0)
