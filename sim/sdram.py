# pyright: reportAttributeAccessIssue=false
"""The behavioural SDRAM of `sdram_model.v` as a component: for simulation, not for synthesis."""

from __future__ import annotations

import enum
import math
from pathlib import Path

from amaranth import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.memory.pins import SdramPins
from boards.memory.sdram_part import SdramPart

__all__ = ["SOURCE", "SdramModel", "Violation", "model_cycles"]

SOURCE = Path(__file__).with_name("sdram_model.v")
"""The Verilog that a simulator needs beside the component."""


class Violation(enum.IntEnum):
    """`SdramModel.first_code`: the rule that was broken first. See `sdram_model.v`."""

    NONE = 0
    POWER_UP = 1
    INITIALISATION = 2
    MODE = 3
    BANK_OPEN = 4
    BANK_CLOSED = 5
    REFRESH_OPEN = 6
    RCD = 7
    RP = 8
    RAS = 9
    RAS_MAX = 10
    RC = 11
    RFC = 12
    RRD = 13
    WR = 14
    MRD = 15
    CONTENTION = 16
    UNDRIVEN = 17
    RETENTION = 18
    UNSUPPORTED = 19
    ADDRESS = 20


def model_cycles(part: SdramPart, hz: float) -> dict[str, int]:
    """The model's parameters for a part at a clock. Rounded here and not by the part, so that
    the model does not share the controller's mistakes."""
    period = 1e9 / hz

    def least(ns: float) -> int:
        cycles = math.ceil(ns / period)
        return cycles - 1 if math.isclose((cycles - 1) * period, ns) else cycles

    return {
        "BANK_BITS": part.bank_bits,
        "ROW_BITS": part.row_bits,
        "COLUMN_BITS": part.column_bits,
        "T_RCD": least(part.t_rcd),
        "T_RP": least(part.t_rp),
        "T_RAS": least(part.t_ras),
        "T_RAS_MAX": int(part.t_ras_max / period),
        "T_RC": least(part.t_rc),
        "T_RFC": least(part.t_rfc),
        "T_RRD": least(part.t_rrd),
        "T_WR": least(part.t_wr),
        "T_MRD": part.t_mrd_cycles,
        "T_POWER_UP": least(part.power_up),
        "T_RETENTION": int(part.retention / period),
    }


class SdramModel(wiring.Component):
    """An SDRAM part on the pins of `SdramController`, taking commands at the edge of `sync`.

    Parameters
    ----------
    part, hz: geometry, and the rules in cycles.

    Members
    -------
    pins: `SdramPins`. off: makes it forget all but its contents. violations: rules broken so
    far. first_code: `Violation`, the first. refreshes: refresh commands so far.
    """

    def __init__(self, part: SdramPart, hz: float):
        self._parameters = model_cycles(part, hz)
        super().__init__(
            {
                "pins": In(SdramPins()),
                "off": In(1),
                "violations": Out(32),
                "first_code": Out(Violation),
                "refreshes": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pins = self.pins
        m.submodules.chip = Instance(
            "sdram_model",
            *(("p", name, value) for name, value in self._parameters.items()),
            i_clk=ClockSignal(),
            i_off=self.off,
            i_cke=pins.clk_en,
            i_cs_n=~pins.cs,
            i_ras_n=~pins.ras,
            i_cas_n=~pins.cas,
            i_we_n=~pins.we,
            i_ba=pins.ba,
            i_a=pins.a,
            i_dqm=pins.dqm,
            i_dq_in=pins.dq_o,
            i_dq_in_en=pins.dq_oe,
            o_dq_out=pins.dq_i,
            o_violations=self.violations,
            o_first_code=self.first_code,
            o_refreshes=self.refreshes,
        )
        return m
