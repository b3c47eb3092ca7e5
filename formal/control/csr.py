"""`hw/control/csr.py` and the sequencer: AXI4-Lite as promised, and a reset leaves no interrupt."""

from __future__ import annotations

from functools import partial

from amaranth import Signal

from formal.axi import prove_stable
from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Proof, Reachability
from hw.config import AcceleratorConfig, get_config
from hw.control.csr import ControlRegisters

__all__ = ["PROOFS"]


def csr(config: AcceleratorConfig) -> Model:
    """The driver may do anything. Nothing finishes from a reset on until the next start, as
    `control.sequencer` proves (`silent`)."""
    model = Model()
    m = model.m
    unit = model.unit(ControlRegisters(config))
    axi = unit.s_axil
    model.drive(unit)

    # One answer for each write and each read, and it stays.
    words, addresses, reads = (Signal(2, name=name) for name in ("words", "addresses", "reads"))
    answered, read = axi.bvalid & axi.bready, axi.rvalid & axi.rready
    m.d.sync += [
        addresses.eq(addresses + (axi.awvalid & axi.awready) - answered),
        words.eq(words + (axi.wvalid & axi.wready) - answered),
        reads.eq(reads + (axi.arvalid & axi.arready) - read),
    ]
    prove_stable(model, "b_stable", axi, "b", "resp")
    prove_stable(model, "r_stable", axi, "r", "data", "resp")
    model.prove("write_answers", ~axi.bvalid | ((addresses != 0) & (words != 0)))
    model.prove("read_answers", ~axi.rvalid | (reads != 0))
    model.lemma("reads", reads <= 1)
    model.lemma("writes", (addresses <= 2) & (words <= 2))

    # Requests: of one cycle, and only what was written.
    for name in ("o_start", "o_reset"):
        signal = getattr(unit, name)
        model.prove(f"{name[2:]}_pulse", ~signal | ~model.past(signal))
    silent = Signal()
    with m.If(unit.o_start):
        m.d.sync += silent.eq(0)
    with m.If(unit.o_reset):
        m.d.sync += silent.eq(1)
    model.assume("finishes", ~(unit.i_finished & silent))
    model.prove("no_interrupt", ~silent | ~unit.o_interrupt)
    return model


HW = "hw.control.csr"
RESET = """\
        with m.If(self.o_reset):
            m.d.sync += pending.eq(0)
"""
MUTANTS = (
    Mutant("b_stable", HW, "with m.Elif(axi.bvalid & axi.bready)", "with m.Elif(axi.bvalid)"),
    Mutant("r_stable", HW, "with m.Elif(axi.rvalid & axi.rready)", "with m.Elif(axi.rvalid)"),
    Mutant("r_stable", HW, "axi.rvalid.eq(1), reading.eq(0)]", "axi.rvalid.eq(1)]"),
    Mutant("write_answers", HW, "has_address & has_word & ~axi.bvalid", "has_word & ~axi.bvalid"),
    Mutant("write_answers", HW, "[has_address.eq(0), has_word.eq(0),", "[has_address.eq(0),"),
    Mutant("read_answers", HW, "with m.If(reading & decoded &", "with m.If(decoded &"),
    Mutant("start_pulse", HW, "[self.o_start.eq(0), self.o_reset.eq(0)]", "self.o_reset.eq(0)"),
    Mutant("reset_pulse", HW, "[self.o_start.eq(0), self.o_reset.eq(0)]", "self.o_start.eq(0)"),
    Mutant("no_interrupt", HW, RESET, ""),
)

PROOFS = (
    Proof(
        "control.csr",
        {"base": partial(csr, get_config("base"))},
        Reachability(),
        MUTANTS,
        cycles=14,
    ),
)
