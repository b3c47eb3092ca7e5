"""A report from programs to record and picture, on a small encoder."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from hw.config import PRESETS
from sw.bench.cases import Encoder
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.lower.switches import Switches
from sw.compound.gains import NONE, Chosen, needed
from sw.compound.language import SmolLM2
from sw.compound.minilm import MiniLM
from sw.compound.picture import draw_compound
from sw.compound.report import COUNTERS, explained, label, measure, record, sets_of
from sw.compound.subject import METRICS, OPTIMISATIONS, Subject, costs_of, switches_of, with_sleep
from sw.driver import open_device
from sw.energy import Counts, predicted, read_table
from sw.energy.counts import of_commands
from sw.golden.activity import EXACT

NAMES = ("sleep", "fusion", "prefetch", "softmax")


class Small(Subject):
    """A layer of an encoder."""

    name, unit, work = "a layer", "text", "24 tokens"
    offers = NAMES
    refuses: ClassVar = {name: "it is small" for name in OPTIMISATIONS if name not in NAMES}

    @functools.cached_property
    def graph(self):
        return Encoder(hidden=64, heads=2, ffn=96, seq=24, layers=1).graph()

    def counts(self, chosen: Chosen) -> Counts:
        config = with_sleep(PRESETS["base"], chosen)
        return predicted(lower(self.graph, config, switches=switches_of(chosen)))

    def accuracy(self, chosen: Chosen) -> dict[str, float]:
        assert not chosen
        return {"cosine": 1.0}

    def changes_results(self, chosen: Chosen) -> Chosen:
        return NONE


@pytest.fixture(scope="module")
def report():
    return measure(Small(), NAMES, read_table("horowitz-45nm"))


def test_gains(report):
    """What each switch is for, it saves; sleep saves energy alone."""
    gains = {metric: joint.gains for metric, joint in report.joints.items()}
    assert gains["cycles"]["prefetch"] > 0.1 and gains["bytes"]["prefetch"] == 0
    assert gains["bytes"]["fusion"] > 0.1
    assert gains["cycles"]["sleep"] == gains["bytes"]["sleep"] == 0 < gains["energy"]["sleep"]
    for joint in report.joints.values():
        assert joint.measured > 0 and len(joint.pairs) == 6


def test_parts_add_up(report):
    for counts in report.counts.values():
        costs = costs_of(counts, report.table)
        assert costs["cycles"].total == counts.cycles
        assert costs["bytes"].total == counts.read_bytes + counts.write_bytes
        assert all(min(cost.parts.values()) >= 0 for cost in costs.values())


def test_record(report):
    found = json.loads(json.dumps(record(report)))
    assert {"gains", "predicted_joint", "measured_joint", "weighted_sum", "pairs"} <= set(found)
    assert len(found["pairs"]) == 6 and len(found["sets"]) == 12
    for metric in METRICS:
        pairs = {(p["first"], p["second"]): p[metric]["interaction"] for p in found["pairs"]}
        largest = tuple(found["largest"][metric]["pair"])
        assert abs(pairs[largest]) == max(map(abs, pairs.values()))
        assert set(found["largest"][metric]["counters"]) == {
            label(chosen) for chosen in sets_of(report, metric)
        }


def test_counters(report):
    for chosen in report.counts:
        counters = explained(report, chosen)
        assert set(counters) == set(COUNTERS)
        moved = counters["weights"] + counters["activations"] + counters["commands"]
        assert moved == pytest.approx(report.costs[chosen]["bytes"].total)


def test_picture(report, tmp_path):
    draw_compound(tmp_path / "p.png", report)
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_a_pass_that_did_not_run_is_counted_as_one_that_did():
    """At any position: loads of key blocks that a register drops are not counted."""
    shape = DecoderShape(
        hidden=12, heads=4, kv_heads=2, dim=6, ffn=9, layers=1, vocabulary=50, context=80,
        key_block=16,
    )  # fmt: skip
    config = replace(PRESETS["tiny"], sleep=True)
    program = lower_decoder(decoder(shape), config, (1, 4))
    reads = []
    with open_device("golden", config=config) as device:
        session = device.load_decoder(program).session()
        for size in (4, 1, 4, 4, 4, 4, 1):
            entry, before = program.entries[size], session.position
            ids = np.full(size, 3)
            session.verify(ids.tolist()) if size > 1 else session.step(3)
            ran = device.activity()
            registers = program.registers(before, ids, False, before)
            said = of_commands(config, entry.commands.tobytes(), 1, registers)
            assert {name: said[name] for name in EXACT} == {name: ran[name] for name in EXACT}
            reads.append(said.read_bytes)
    assert reads[-1] > reads[1], "keys behind a block were never read"


@pytest.mark.parametrize("kind", [MiniLM, SmolLM2])
def test_all_apply_or_have_a_reason(kind):
    assert set(kind.offers) | set(kind.refuses) == set(OPTIMISATIONS)
    assert not set(kind.offers) & set(kind.refuses)
    assert kind.choose(()) == kind.offers
    for name in kind.refuses:
        with pytest.raises(InputError, match=f"{name} does not apply to {kind.name}"):
            kind.choose((name, "fusion"))
    with pytest.raises(InputError, match="unknown optimisation 'magic'"):
        kind.choose(("magic",))
    with pytest.raises(InputError, match="sleep alone"):
        kind.choose(("sleep",))


class SmallLanguage(SmolLM2):
    """A decoder of few features, and texts that repeat themselves."""

    shape = DecoderShape(
        hidden=128, heads=4, kv_heads=2, dim=32, ffn=384, layers=5, vocabulary=100, context=160,
        key_block=16,
    )  # fmt: skip

    def texts(self, bits: int):
        words = list(range(20))
        return [(words, words + words), (words, [7, 3, 5])]


@pytest.mark.parametrize("off", [(), ("fuse", "prefetch", "one_pass")])
def test_layers_that_are_not_lowered(off):
    """More of the third layer is what all of them do."""
    subject = SmallLanguage(PRESETS["base"], 100)
    switches = Switches(**dict.fromkeys(off, False))
    found = subject.passes(8, switches, drafts=True).counts
    context = 112
    whole = lower_decoder(subject.graph(8, context, 5), PRESETS["base"], tuple(found), switches)
    for size, counts in found.items():
        entry, before = whole.entries[size], 100 - size
        registers = whole.registers(before, np.zeros(size, np.int64), False, before)
        cycles = entry.estimated_cycles(before)
        want = of_commands(PRESETS["base"], entry.commands.tobytes(), cycles, registers)
        assert counts.cycles == pytest.approx(want.cycles, rel=0.01)
        assert counts.read_bytes == pytest.approx(want.read_bytes, rel=0.01)
        slack = 0.01 * want.cycles  # what stays on chip differs with the room around it
        for name in EXACT:
            assert counts[name] == pytest.approx(want[name], rel=0.01, abs=slack), name


def test_a_language_model():
    subject = SmallLanguage(PRESETS["base"], 100)
    found = {chosen: subject.counts(chosen) for chosen in needed(SmolLM2.offers)}
    plain = found[NONE]

    def of(*names: str) -> Counts:
        return found[frozenset(names)]

    # A text that is copied: passes of several tokens, which cost more than one each.
    assert of("speculation").cycles < 0.6 * plain.cycles
    assert of("formats").read_bytes < plain.read_bytes
    assert of("sleep").cycles == plain.cycles and of("sleep")["asleep_array"] > 0
    assert of("prefetch").cycles < plain.cycles and of("prefetch").read_bytes == plain.read_bytes
    assert of("softmax").read_bytes < plain.read_bytes > of("fusion").read_bytes
    everything = found[frozenset(SmolLM2.offers)]
    assert everything.cycles == min(counts.cycles for counts in found.values())


def test_positions_of_a_language_model():
    with pytest.raises(InputError, match="--context 8: give 9 to 2048"):
        SmolLM2(PRESETS["base"], 8)
