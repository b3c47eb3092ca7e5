"""Quick proofs hold, each property has mutants that it finds out, false ones are not proved."""

from __future__ import annotations

import pytest
from amaranth import Signal

from formal.catalogue import PROOFS
from formal.model import Model
from formal.mutants import Mutant, applied
from formal.prove import Bounded, Induction, Proof, ProofError, Reachability, check, kills
from hw.fifo import CountedFifo


@pytest.mark.parametrize("proof", [p for p in PROOFS if p.quick], ids=lambda proof: proof.name)
def test_holds(proof):
    check(proof)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_every_property_has_mutants(proof):
    for build in proof.models.values():
        model = build()
        assert "fails" in model.rtlil([*model.properties, *model.lemmas])
    assert {mutant.kills for mutant in proof.mutants} == set(model.properties)
    for mutant in proof.mutants:
        with applied(mutant):
            pass


@pytest.mark.parametrize("proof", PROOFS[:1], ids=lambda proof: proof.name)
def test_mutants_are_found_out(proof):
    assert all(cycle is not None for _, cycle in kills(proof))


def counting_to(most: int) -> Model:
    """A counter that starts anew after `most`, and of which it is said to stay below 5."""
    model = Model()
    count = Signal(4)
    model.m.d.sync += count.eq(count + 1)
    with model.m.If(count == most):
        model.m.d.sync += count.eq(0)
    model.prove("below", count < 5)
    return model


@pytest.mark.parametrize("method", [Induction(1), Reachability(), Bounded(10)], ids=str)
def test_false_property(method):
    proof = Proof("counter", {"4 bits": lambda: counting_to(9)}, method, ())
    with pytest.raises(ProofError, match=r"counter \(4 bits\)"):
        check(proof)


def test_true_property_that_is_not_inductive():
    """4 is below 5 and its successor is not, but nothing leads to 4."""
    model = {"4 bits": lambda: counting_to(3)}
    with pytest.raises(ProofError, match="does not prove below"):
        check(Proof("counter", model, Induction(1), ()))
    assert check(Proof("counter", model, Induction(2), ())) == ["below"]
    assert check(Proof("counter", model, Reachability(), ())) == ["below"]


def test_assumptions_end_what_counts():
    def build(promise: bool) -> Model:
        model = Model()
        level = model.free(2, "level")
        seen = Signal()
        model.m.d.sync += seen.eq(seen | (level == 3))
        if promise:
            model.assume("low", level != 3)
        model.prove("unseen", ~seen)
        return model

    check(Proof("level", {"": lambda: build(True)}, Induction(), ()))
    with pytest.raises(ProofError, match="unseen fails in cycle 1"):
        check(Proof("level", {"": lambda: build(False)}, Induction(2), ()))


def test_mutants_leave_no_trace():
    before = CountedFifo.elaborate.__code__
    mutant = Mutant("order", "hw.fifo", "no such text", "")
    with pytest.raises(ValueError, match="has 0 times 'no such text'"), applied(mutant):
        pass
    mutant = Mutant("order", "hw.fifo", "consume + taken", "consume + 1")
    with applied(mutant):
        assert CountedFifo.elaborate.__code__ != before
    assert CountedFifo.elaborate.__code__ == before
