"""A clock of another frequency from the board's oscillator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from amaranth import Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.technology import Technology, technology_of
from hw.config import ConfigError

__all__ = ["Dividers", "Pll", "find_dividers"]

MHZ = 10**6
INPUT = (8 * MHZ, 400 * MHZ)
DETECTOR = (10 * MHZ, 400 * MHZ)
OSCILLATOR = (400 * MHZ, 800 * MHZ)
OUTPUT = (6_250_000, 400 * MHZ)
"""Frequencies that the parts of an ECP5's PLL allow. The slowest output leaves room for a phase."""
FEEDBACK_MOST = 80
OUTPUT_MOST = 64
TOLERANCE = Fraction(1, 100)
"""Between the frequency that is asked for and the nearest that there is."""


@dataclass(frozen=True)
class Dividers:
    """`detector = input / reference`, `oscillator = detector * feedback * loop`,
    `output = oscillator / output`."""

    reference: int
    feedback: int
    loop: int
    output: int

    def oscillator_hz(self, input_hz: int) -> Fraction:
        return Fraction(input_hz * self.feedback * self.loop, self.reference)

    def output_hz(self, input_hz: int) -> Fraction:
        return self.oscillator_hz(input_hz) / self.output

    def divider_below(self, input_hz: int, most_hz: int) -> int:
        """The divider for the fastest clock up to `most_hz`."""
        return math.ceil(self.oscillator_hz(input_hz) / most_hz)

    def hz_below(self, input_hz: int, most_hz: int) -> Fraction:
        """That clock."""
        return self.oscillator_hz(input_hz) / self.divider_below(input_hz, most_hz)


def _within(value: int | Fraction, limits: tuple[int, int]) -> bool:
    return limits[0] <= value <= limits[1]


def find_dividers(input_hz: int, output_hz: int, memory_most_hz: int | None = None) -> Dividers:
    """The dividers of an EHXPLLL that come nearest to `output_hz`, and among these the ones with
    the fastest phase detector, which follows the input best, then the fastest clock for a memory
    up to `memory_most_hz`, then the fastest oscillator.

    Raises `ConfigError` where they are not within 1%.
    """
    for text, hz, limits in (("input", input_hz, INPUT), ("output", output_hz, OUTPUT)):
        if not _within(hz, limits):
            least, most = (f"{limit / MHZ:g}" for limit in limits)
            raise ConfigError(f"clock: {text} of {hz / MHZ:g} MHz; a PLL takes {least} to {most}")
    best: tuple[tuple[Fraction, int, Fraction, Fraction], Dividers] | None = None
    for reference in range(1, input_hz // DETECTOR[0] + 1):
        detector = Fraction(input_hz, reference)
        for factor in range(1, int(OSCILLATOR[1] / detector) + 1):
            oscillator = detector * factor
            loop = next(
                (
                    loop
                    for loop in range(1, factor + 1)
                    if factor % loop == 0
                    and factor // loop <= FEEDBACK_MOST
                    and _within(oscillator / loop, OUTPUT)
                ),
                None,
            )
            if loop is None or not _within(oscillator, OSCILLATOR):
                continue
            nearest = int(oscillator / output_hz)
            for output in (nearest, nearest + 1):
                if 1 <= output <= OUTPUT_MOST and _within(oscillator / output, OUTPUT):
                    error = abs(oscillator / output - output_hz)
                    dividers = Dividers(reference, factor // loop, loop, output)
                    memory = dividers.hz_below(input_hz, memory_most_hz or output_hz)
                    rank = (error, reference, -memory, -oscillator)
                    if best is None or rank < best[0]:
                        best = rank, dividers
    if best is None or best[0][0] > output_hz * TOLERANCE:
        near = (
            "" if best is None else f"; {float(best[1].output_hz(input_hz)) / MHZ:.3f} is nearest"
        )
        raise ConfigError(
            f"clock: no PLL makes {output_hz / MHZ:g} MHz from {input_hz / MHZ:g} MHz{near}"
        )
    return best[1]


class Pll(wiring.Component):
    """A clock, and for a memory another one and that one shifted. They begin when they are steady:
    what they drive needs no reset to begin as the bitstream says.

    On ECP5 this is one EHXPLLL, and gates of the global clock network that its lock opens.
    Elsewhere all clocks are the input's: for simulation.

    Parameters
    ----------
    input_hz, output_hz: whole numbers. memory_most_hz: the memory's clock is the fastest up to
    that, from the same oscillator. phase: of `o_shifted` behind `o_memory`, in periods, 0 to 1;
    rounded to a period of the PLL's oscillator (1.25 to 2.5 ns).

    Members
    -------
    i: the oscillator. o, o_memory, o_shifted: clocks.

    Attributes
    ----------
    hz, memory_hz: what the clocks have exactly; the first within 1% of `output_hz`.

    Raises `ConfigError` for frequencies that no PLL can make.
    """

    def __init__(
        self,
        input_hz: int,
        output_hz: int,
        memory_most_hz: int | None = None,
        phase: float = 0.0,
    ):
        self.dividers = find_dividers(input_hz, output_hz, memory_most_hz)
        self.hz = self.dividers.output_hz(input_hz)
        most = memory_most_hz or output_hz
        self._divider = self.dividers.divider_below(input_hz, most)
        self.memory_hz = self.dividers.hz_below(input_hz, most)
        self._steps = round(phase * self._divider)  # by which `o_shifted` comes later
        super().__init__({"i": In(1), "o": Out(1), "o_memory": Out(1), "o_shifted": Out(1)})

    def elaborate(self, platform):
        m = Module()
        if technology_of(platform) is Technology.ECP5:
            self._ecp5(m)
        else:
            m.d.comb += [out.eq(self.i) for out in (self.o, self.o_memory, self.o_shifted)]
        return m

    def _ecp5(self, m: Module) -> None:
        dividers, zero = self.dividers, Const(0, 1)
        feedback, locked = Signal(), Signal()
        free = {name: Signal(name=f"free_{name}") for name in ("o", "o_memory", "o_shifted")}
        # A phase of zero is a count of a divider less one.
        outputs = {"OP": (dividers.loop, 0), "OS": (dividers.output, 0)}
        outputs |= {"OS2": (self._divider, self._steps), "OS3": (self._divider, 0)}
        parameters = {}
        for name, (divider, phase) in outputs.items():
            parameters[f"p_CLK{name}_ENABLE"] = "ENABLED"
            parameters[f"p_CLK{name}_DIV"] = divider
            parameters[f"p_CLK{name}_CPHASE"] = divider - 1 + phase
            parameters[f"p_CLK{name}_FPHASE"] = 0
        unused = ("RST", "STDBY", "PHASESEL0", "PHASESEL1", "PHASEDIR", "PHASESTEP", "PHASELOADREG")
        m.submodules.pll = Instance(
            "EHXPLLL",
            # The loop filter as Project Trellis' ecppll sets it.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_CLKI_DIV=dividers.reference,
            p_CLKFB_DIV=dividers.feedback,
            p_FEEDBK_PATH="CLKOP",
            **parameters,
            i_CLKI=self.i,
            i_CLKFB=feedback,
            o_CLKOP=feedback,
            o_CLKOS=free["o"],
            o_CLKOS2=free["o_shifted"],
            o_CLKOS3=free["o_memory"],
            o_LOCK=locked,
            **{f"i_{name}": zero for name in unused},
        )
        for name, clock in free.items():
            m.submodules[f"gate_{name}"] = Instance(
                "DCCA", i_CLKI=clock, i_CE=locked, o_CLKO=getattr(self, name)
            )
