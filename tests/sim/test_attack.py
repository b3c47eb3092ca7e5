"""A campaign of some hundred mutants, and that it finds and reduces what is wrong.

More of them: `python -m tests.sim.attack --mutants 5000 --seed 1`.
"""

from __future__ import annotations

import os
import random

import pytest

import sw.golden.machine
from hw import isa
from hw.isa import Command, Opcode, Region
from tests.hw.programs import REGION_BYTES, program_image
from tests.sim import attack
from tests.sim.attack import CONFIG, Campaign, Disagreement, machines
from tests.sim.mutants import Mutant, Order, random_mutant
from tests.sim.reduction import reduce
from tests.sim.rtl import SEED

MUTANTS = int(os.environ.get("WEFT_TEST_MUTANTS", "300"))


@pytest.fixture(scope="module")
def built():
    return attack.build()


def test_campaign(built):
    campaign = Campaign(built)
    campaign.run(SEED, MUTANTS)
    print(campaign.results)
    assert not campaign.faults, "\n".join(campaign.faults)
    results = campaign.results
    assert results.total() == MUTANTS
    for name in ("ILLEGAL_COMMAND", "DMA_WINDOW", "ONCHIP_RANGE"):
        assert results[name]
    assert results["NONE"] > MUTANTS // 3 and results["undefined"] < MUTANTS // 10


def test_a_wrong_machine_is_found(built, monkeypatch):
    """Residual sums without the residual, and selections of zeros."""
    monkeypatch.setattr(sw.golden.machine, "round_shift", lambda x, shift: 0 * x)
    monkeypatch.setattr(sw.golden.machine, "compiled_machine", lambda config: None)
    monkeypatch.setattr(attack, "reduce", lambda mutant, fails: mutant)
    campaign = Campaign(built)
    campaign.run(SEED, 30, most_faults=1)
    (text,) = campaign.faults
    assert "bytes differ" in text and ("add_residual=1" in text or "SELECT" in text)


def test_changed_guard_bytes_are_found(built):
    with machines(built, SEED) as pair:
        image = program_image(b"", random.Random(SEED))
        attack.place(pair, image, random.Random(SEED))
        before = pair.rtl.memory.data.copy()
        base = pair.rtl.memory.bases[Region.WORKSPACE]
        pair.rtl.memory.data[base] ^= 1
        attack.check_guards(pair, before)
        for address in (base - 1, base + REGION_BYTES[Region.WORKSPACE]):
            pair.rtl.memory.data[address] ^= 1
            with pytest.raises(Disagreement, match=f"first {address:#x}"):
                attack.check_guards(pair, before)
            pair.rtl.memory.data[address] ^= 1


def test_reduction_leaves_what_matters():
    """Here: a VECTOR of at least three rows somewhere behind a LOAD."""

    def fails(mutant: Mutant) -> bool:
        try:
            found = [isa.decode(word) for word in mutant.words]
        except isa.IsaError:
            return False
        loads = [i for i, command in enumerate(found) if command.opcode == Opcode.LOAD]
        behind = found[loads[0] :] if loads else []
        return any(c.opcode == Opcode.VECTOR and c["rows"] >= 3 for c in behind)

    mutants = (random_mutant(CONFIG, seed) for seed in range(SEED, SEED + 100))
    mutant = next(m for m in mutants if not m.what and fails(m))
    least = reduce(mutant, fails)
    load, vector = map(isa.decode, least.words)
    assert load == Command(Opcode.LOAD, load.values) and vector.opcode == Opcode.VECTOR
    assert {name: value for name, value in load.values.items() if value} == {
        "memory": load["memory"],
        "words": 1,
        "runs": 1,
    }
    assert vector["rows"] == 3 and sum(vector.values.values()) == 4
    assert least.order is Order.BARRIERS
