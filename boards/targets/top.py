"""The top module of a board: clocks, pads and lamps around a `System`."""

from __future__ import annotations

from typing import Any

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, Signal, Value
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.io import Direction

from boards.memory.sdram_part import SdramPart
from boards.system import System
from boards.targets.board import Board
from hw.cells.pll import Pll
from hw.config import AcceleratorConfig

__all__ = ["MEMORY_NET", "SYSTEM_NET", "BoardTop"]

SYSTEM_NET, MEMORY_NET = "clk", "pll.o_memory"
"""Names of the nets of the clocks, after synthesis without borders."""

BLINK_HZ = 1
GLOW_SECONDS = 1 / 16
"""How long a lamp shows what lasts a cycle."""
LAMPS = 4
OUTPUTS = ("clk_en", "cs", "ras", "cas", "we", "ba", "a", "dqm")
"""Pins of an SDRAM that only go out, as `SdramPins` and amaranth-boards both call them."""


class BoardTop(Elaboratable):
    """An accelerator on a board.

    Lamps, as many as there are: blinks while the clock runs; the host sends; the board sends;
    the program has ended (until the host says that it has seen it).

    Raises `hw.config.ConfigError` for a frequency or a configuration that cannot be.
    """

    def __init__(self, board: Board, config: AcceleratorConfig, mhz: float | None = None):
        self.board = board
        self.clocks = board.clocks(mhz)
        self.system = System(
            config,
            board.memory,
            hz=float(self.clocks.hz),
            memory_hz=float(self.clocks.memory_hz or self.clocks.hz),
            baud=board.baud,
            pad_cycles=self.clocks.pad_cycles,
        )

    def elaborate(self, platform):
        m = Module()
        self._clock(m, platform)
        m.submodules.system = system = self.system
        uart = _ports(platform, "uart")
        m.submodules.rx = rx = io.Buffer(Direction.Input, uart.rx)
        m.submodules.tx = tx = io.FFBuffer(Direction.Output, uart.tx)
        m.d.comb += [system.rx.eq(rx.i), tx.o.eq(system.tx)]
        if isinstance(self.board.memory, SdramPart):
            self._sdram(m, platform)
        self._lamps(m, platform)
        for name, pin in self.board.high:
            pad = getattr(_ports(platform, name), pin)
            m.submodules[f"{name}_{pin}"] = tied = io.Buffer(Direction.Output, pad)
            m.d.comb += tied.o.eq(1)
        return m

    def _clock(self, m: Module, platform: Any) -> None:
        # Registers begin as the bitstream says. A reset in their place would be the net with the
        # longest way of all.
        m.domains.sync = system = ClockDomain("sync", reset_less=True)
        pins = platform.request(platform.default_clk, dir="-")
        m.submodules.oscillator = oscillator = io.Buffer(Direction.Input, pins)
        clocks = self.clocks
        if clocks.wanted_hz is None:
            m.d.comb += system.clk.eq(oscillator.i)
            return
        m.submodules.pll = pll = Pll(
            self.board.oscillator_hz, clocks.wanted_hz, self.board.memory_most_hz, clocks.phase
        )
        m.d.comb += [pll.i.eq(oscillator.i), system.clk.eq(pll.o)]
        if clocks.memory_hz is not None:
            m.domains.memory = memory = ClockDomain("memory", reset_less=True)
            m.domains.sdram = ClockDomain("sdram", reset_less=True)
            m.d.comb += [memory.clk.eq(pll.o_memory), ClockSignal("sdram").eq(pll.o_shifted)]

    def _sdram(self, m: Module, platform: Any) -> None:
        # All through registers in the pads, so that the times to the pins are the same.
        pads, pins = _ports(platform, "sdram"), self.system.sdram
        for name in OUTPUTS:
            m.submodules[f"sdram_{name}"] = buffer = io.FFBuffer(
                Direction.Output, getattr(pads, name), o_domain="memory"
            )
            m.d.comb += buffer.o.eq(getattr(pins, name))
        domains = {"i_domain": "memory", "o_domain": "memory"}
        m.submodules.sdram_dq = dq = io.FFBuffer(Direction.Bidir, pads.dq, **domains)
        m.d.comb += [dq.o.eq(pins.dq_o), dq.oe.eq(pins.dq_oe), pins.dq_i.eq(dq.i)]
        m.submodules.sdram_clk = clk = io.DDRBuffer(Direction.Output, pads.clk, o_domain="sdram")
        m.d.comb += [clk.o[0].eq(1), clk.o[1].eq(0)]

    def _lamps(self, m: Module, platform: Any) -> None:
        cycles = round(self.clocks.hz / (2 * BLINK_HZ))
        beat, lit = Signal(range(cycles)), Signal()
        m.d.sync += beat.eq(beat + 1)
        with m.If(beat == cycles - 1):
            m.d.sync += [beat.eq(0), lit.eq(~lit)]
        states: list[Value] = [lit]
        longest = round(self.clocks.hz * GLOW_SECONDS)
        for name, line in (("rx", self.system.rx), ("tx", self.system.tx)):
            left = Signal(range(longest + 1), name=f"{name}_glow")
            level = Signal(init=1, name=f"{name}_level")
            m.submodules[f"{name}_level"] = FFSynchronizer(line, level, init=1)
            with m.If(~level):
                m.d.sync += left.eq(longest)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            states.append(left != 0)
        states.append(self.system.interrupt)
        for i, (lamp, state) in enumerate(zip(_lamps(platform), states, strict=False)):
            m.submodules[f"lamp_{i}"] = buffer = io.Buffer(Direction.Output, lamp)
            m.d.comb += buffer.o.eq(state)


def _ports(platform: Any, name: str, number: int = 0) -> Any:
    """Ports of all pins of a resource, without buffers."""
    resource = platform.lookup(name, number)
    return platform.request(name, number, dir={pin.name: "-" for pin in resource.ios})


def _lamps(platform: Any) -> list[Any]:
    """Ports of the first lamps: single ones, or the green of coloured ones."""
    if ("led", 0) in platform.resources:
        there = [i for i in range(LAMPS) if ("led", i) in platform.resources]
        return [platform.request("led", i, dir="-") for i in there]
    there = [i for i in range(LAMPS) if ("rgb_led", i) in platform.resources]
    return [_ports(platform, "rgb_led", i).g for i in there]
