"""What dispatch executes is what `hw.isa.decode` and the golden model accept."""

from __future__ import annotations

import random

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw import isa
from hw.config import AcceleratorConfig
from hw.control.legality import legal_forms, target_units
from hw.control.scoreboard import UNITS
from hw.isa import PRUNE_OPCODES, Opcode
from sw.golden.legality import check_legal
from tests.hw.control.commands import random_word, spoilt_word

SEED = 20240229


OPTIONS = (
    {},
    {"sparse": True},
    {"int4": True},
    {"sparse": True, "int4": True, "decoder": True},
    {"int4": True, "scales": True},
    {"rows": 8, "bus_bytes": 8},
    {"rows": 16, "columns": 32, "decoder": True},
    {"int4": True, "decoder": True, "prune": True},
)


def is_executable(data: bytes, config: AcceleratorConfig) -> bool:
    """Legal, and the configuration has what the command needs."""
    try:
        check_legal(isa.decode(data), config)
    except isa.IsaError:
        return False
    return True


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o) or "plain")
def test_legality_is_that_of_decode(options):
    config = AcceleratorConfig(**options)
    rng = random.Random(SEED)
    words = [random_word(rng) for _ in range(4000)]
    words += [spoilt_word(rng) for _ in range(2000)]
    words += [opcode.to_bytes(1, "little") + b"\xff" * 31 for opcode in range(256)]
    m = Module()
    word = Signal(256)
    forms, legal = legal_forms(word, config), Signal()
    m.d.comb += legal.eq(forms.any())
    target = target_units(m, word, config)
    seen = set()

    async def bench(ctx):
        for data in words:
            ctx.set(word, int.from_bytes(data, "little"))
            expected = is_executable(data, config)
            seen.add((expected, data[0] if data[0] in set(Opcode) else 0))
            assert bool(ctx.get(legal)) == expected, data.hex()
            if expected:
                unit = isa.decode(data).unit
                bit = 1 << UNITS.index(unit) if unit else 0
                assert ctx.get(target) == bit, data.hex()

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    for opcode in Opcode:
        assert (False, int(opcode)) in seen
        exists = opcode != Opcode.SPARSE_GEMM or config.sparse
        exists &= opcode != Opcode.SCALED_GEMM or config.scales
        exists &= opcode not in (Opcode.SELECT, Opcode.ADD) or config.decoder
        exists &= opcode not in PRUNE_OPCODES or config.prune
        assert ((True, int(opcode)) in seen) == exists
