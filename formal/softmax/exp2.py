"""`hw/softmax/exp2.py`: weights as the table and two roundings make them, of every score."""

from __future__ import annotations

from amaranth import Array, Cat, Mux, Signal, signed

from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Induction, Proof
from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS
from hw.softmax.exp2 import FINE_BITS, SoftmaxLane
from hw.softmax.golden import EXP2_LOW_BITS, EXP2_TABLE, FINE_EXTRA_BITS, MAX_SHIFT

__all__ = ["PROOFS"]


GUARDED = FINE_EXTRA_BITS + 1
"""The finer value and a bit below it, which rounds."""


def rounded(value, shift):
    """`hw.numerics.round_shift`."""
    return Mux(shift == 0, value, (value + ((1 << shift) >> 1)) >> shift)


def softmax_lane() -> Model:
    """`hw.softmax.golden.weights`, in unbounded integers."""
    model = Model()
    m = model.m
    unit = model.unit(SoftmaxLane())
    model.drive(unit, "score", "score_shift", "octave", "valid")
    holds = [model.free(1, "holds")]
    for enable in unit.enable:
        m.d.comb += enable.eq(holds[-1])
        holds.append(model.past(holds[-1]))

    # At stage 3, where the last operand comes: the others as they came at their own stages.
    past = model.history
    scores, shifts, octave = past(unit.score), past(unit.score_shift), model.past(unit.octave)
    distance = Signal(signed(48))
    exact = (octave << SCORE_FRACTION_BITS) - rounded(scores[3], shifts[3])
    m.d.comb += distance.eq(exact)
    low = distance[:EXP2_LOW_BITS]
    octaves = distance >> SCORE_FRACTION_BITS
    segment = distance[EXP2_LOW_BITS:SCORE_FRACTION_BITS]
    base, slope = (Array(row[k] for row in EXP2_TABLE)[segment] for k in (0, 1))
    bases, slopes, lows = past(base), past(slope), past(low)
    drops = past(slopes[1] * lows[1])
    value = Signal(16)
    m.d.comb += value.eq(bases[2] - (drops[1] >> EXP2_LOW_BITS))
    values = past(value)  # from two cycles later on
    # From 32 octaves on all is rounded to 0, as it is at 31.
    counts = unit.valid & (scores[3] != MASKED_SCORE) & (distance >= 0) & (octaves <= MAX_SHIFT)
    ns, kept = past(octaves[:5]), past(counts)
    weight = Mux(kept[6], rounded(values[4], ns[6] + 7), 0)
    model.prove("weight", ~holds[9] | (unit.o_weight == weight[:8]))
    fine = Mux(kept[6], rounded(values[4] << FINE_EXTRA_BITS, ns[6]), 0)
    model.prove("fine", ~holds[9] | (unit.o_fine == fine[:FINE_BITS]))

    # What each stage holds, so that one step follows from the one before.
    inside = model.inside(unit)
    doubled = [Signal(signed(33), name=f"doubled_{k}") for k in range(3)]
    m.d.comb += [doubled[k].eq(scores[k] << 1) for k in range(3)]
    stages = [
        (1, inside.coarse == doubled[1] >> (shifts[1][3:] << 3)),
        (1, inside.fine_shift == shifts[1][:3]),
        (1, inside.unmasked == (scores[1] != MASKED_SCORE)),
        (2, inside.guarded == doubled[2] >> shifts[2]),
        (2, inside.unmasked_2 == (scores[2] != MASKED_SCORE)),
        (3, inside.distance == distance),
        (3, inside.unmasked_3 == (scores[3] != MASKED_SCORE)),
        (4, (inside.base_4 == bases[1]) & (inside.slope_4 == slopes[1])),
        (4, inside.low_4 == lows[1]),
        (5, (inside.base_5 == bases[2]) & (inside.dropped == drops[1])),
        (6, inside.value == values[1]),
    ]
    stages += [(4 + k, keep == kept[1 + k]) for k, keep in enumerate(inside.keep)]
    stages += [(4 + k, ~kept[1 + k] | (n == ns[1 + k])) for k, n in enumerate(inside.n)]
    later = [
        (7, inside.coarse_7 == (values[2] << GUARDED) >> (ns[4][3:] << 3)),
        (7, inside.rest == ns[4][:3]),
        (8, inside.shifted == (values[3] << GUARDED) >> ns[5]),
    ]
    stages += [(stage, ~kept[stage - 3] | holds_it) for stage, holds_it in later]
    rows = [(bases[1] == row[0]) & (slopes[1] == row[1]) for row in EXP2_TABLE]
    model.lemma("in_table", Cat(rows).any() | ((bases[1] == 0) & (slopes[1] == 0)))
    model.lemma("no_wrap", (bases[2] >= drops[1] >> EXP2_LOW_BITS) & (bases[2] < 1 << 15))
    for number, (stage, holds_it) in enumerate(stages):
        model.lemma(f"stage_{stage}_{number}", ~holds[stage] | holds_it)
    return model


HW = "hw.softmax.exp2"
MUTANTS = (
    Mutant("weight", HW, "- guarded[0])", ")"),
    Mutant("weight", HW, "shifted[-8:] + shifted[-9]", "shifted[-8:]"),
    Mutant("weight", HW, "dropped.eq(halves[0] + halves[1])", "dropped.eq(halves[0] | halves[1])"),
    Mutant("weight", HW, "unmasked.eq(self.score != MASKED_SCORE)", "unmasked.eq(1)"),
    Mutant("fine", HW, "self.score_shift[3:]", "self.score_shift[3:4]"),
    Mutant("fine", HW, "(distance[fraction + N_BITS :] == 0)", "~distance[-1]"),
    Mutant("fine", HW, "rest.eq(n[2][:3])", "rest.eq(n[2][:2])"),
    Mutant("fine", HW, "shifted[1:] + shifted[0]", "shifted[1:]"),
)

PROOFS = (Proof("softmax.exp2", {"as built": softmax_lane}, Induction(), MUTANTS, cycles=12),)
