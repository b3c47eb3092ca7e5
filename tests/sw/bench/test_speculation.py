"""Accounts of what drafts save: from passes to speedups, and the prompts they are measured on."""

from __future__ import annotations

import numpy as np
import pytest

from sw.bench import speculation
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.measure_decoder import measure_pass
from sw.bench.speculation import (
    KINDS,
    PassCycles,
    _decoded,
    account,
    by_drafts,
    host_bytes,
    measure_rtl,
    prompts_of,
    summary,
)
from sw.bench.speculation_picture import draw_speculation
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.decoding import Decoding, Step
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Fixed
from sw.decoding.sampler import Sampler
from sw.driver import open_device

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=72, key_block=16
)
PROGRAM = lower_decoder(decoder(SHAPE, 2), "tiny", (1, 4, 8))
IDS = [*PROGRAM.prefix, *map(int, np.random.default_rng(3).integers(0, 90, 6))]


def test_prompts():
    """Enough of each kind, and no two alike."""
    prompts = [prompt for kind in KINDS for prompt in prompts_of(kind)]
    assert all(len(prompts_of(kind)) >= 8 for kind in KINDS)
    assert len(set(prompts)) == len(prompts)
    assert all(prompt == prompt.strip() and prompt for prompt in prompts)


def test_cycles_between_measured_passes():
    """Those of passes that were measured, and their quotient to the cost model between them."""
    estimate = PROGRAM.entries[4].estimated_cycles
    measured = [
        {
            "context": 14,
            "tokens": 4,
            "cycles": 1.1 * estimate(10),
            "estimated_cycles": estimate(10),
        },
        {
            "context": 34,
            "tokens": 4,
            "cycles": 1.3 * estimate(30),
            "estimated_cycles": estimate(30),
        },
    ]
    cycles = PassCycles(PROGRAM, {4: measured})
    for position, factor in ((10, 1.1), (20, 1.2), (30, 1.3), (40, 1.3), (0, 1.1)):
        assert cycles(4, position) == pytest.approx(factor * estimate(position))
    assert cycles(8, 20) == PROGRAM.entries[8].estimated_cycles(20)


def test_cycles_of_every_position_from_a_few():
    """On the RTL: what the bench takes for cycles, at positions that were not measured."""
    shape = DecoderShape(
        hidden=576, heads=9, kv_heads=3, ffn=1536, layers=1, vocabulary=512, context=300
    )
    program = lower_decoder(decoder(shape), "base", (1, 8))
    for rows in (1, 8):
        known = {rows: [measure_pass(program, rows, position) for position in (20, 250)]}
        found = measure_pass(program, rows, 140)
        error = PassCycles(program, known)(rows, 140) / found["cycles"] - 1
        print(f"{rows} tokens: {error:+.2%}")
        assert found["bit_exact"] and abs(error) < 0.005


def test_accounts():
    plain = [Step(p, 1, 0, 0, 1, 0, 0) for p in (10, 11, 12, 13, 14)]
    drafting = [Step(10, 1, 0, 0, 1, 0, 0), Step(11, 4, 3, 2, 3, 0, 0), Step(14, 4, 1, 0, 1, 0, 0)]
    one, four = (PROGRAM.entries[rows].estimated_cycles for rows in (1, 4))
    found = account(drafting, plain, PassCycles(PROGRAM, {}))
    assert found["decoded"] == 5 and found["passes"] == 3 and found["rows"] == {"1": 1, "4": 2}
    assert (found["drafted"], found["accepted"]) == (4, 2)
    without, with_drafts = sum(map(one, range(10, 15))), one(10) + four(11) + four(14)
    assert (found["plain_cycles"], found["cycles"]) == (without, with_drafts)
    assert found["speedup"] == pytest.approx(without / with_drafts)
    other = {**found, "cycles": found["plain_cycles"], "speedup": 1.0, "identical": False}
    total = summary([{**found, "identical": True}, other])
    assert total["speedup"] == pytest.approx(2 * without / (with_drafts + without))
    assert total["mean_speedup"] == pytest.approx((found["speedup"] + 1) / 2)
    assert total["least_speedup"] == min(1.0, found["speedup"]) and not total["identical"]
    assert total["tokens_per_step"] == pytest.approx(10 / 6)


def test_speedups_by_number_of_drafts_are_those_of_decoding(tmp_path):
    """Texts that are known need no machine."""
    cycles, results, expected = PassCycles(PROGRAM, {}), [], 0.0
    with open_device("golden", "tiny") as device:
        model = device.load_decoder(PROGRAM)
        for policy in (None, Fixed(3)):
            source = None if policy is None else Lookup()
            decoding = Decoding(Sampler(), (), source, policy or Fixed(0))
            text = list(decoding.answer(model.session(), IDS, 40))
            spent = sum(cycles(step.rows, step.position) for step in decoding.steps)
            expected = expected / spent if policy else spent
    results = [{"ids": IDS, "tokens": text, "kind": "chat", "tokens_per_step": 1.5}]
    found = by_drafts(PROGRAM, results, cycles)
    assert list(found) == [str(n) for n in range(1, 8)]
    assert found["3"] == pytest.approx(expected)
    total = {"tokens_per_step": 1.5, "speedup": 1.2, "by_drafts": found}
    draw_speculation(tmp_path / "picture.png", {"chat": total}, results)
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    """Texts and passes of the RTL that are known are not made again; others are."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    with open_device("golden", "tiny") as device:
        model = device.load_decoder(PROGRAM)
        texts, passes = _decoded(model, IDS, {5}, 12)
        assert texts[0] == texts[1] and len(passes[0]) >= len(passes[1]) > 0

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("it ran")

        monkeypatch.setattr(model, "run", fail)
        assert _decoded(model, IDS, {5}, 12) == [texts, passes]
        for other in ((IDS[:-1], {5}, 12), (IDS, {6}, 12), (IDS, {5}, 13)):
            with pytest.raises(AssertionError, match="it ran"):
                _decoded(model, *other)
    counted: list[tuple[int, int]] = []

    def measured(program: DecoderProgram, rows: int, position: int) -> dict[str, int]:
        counted.append((rows, position))
        return {"context": position + rows, "tokens": rows, "cycles": 3, "estimated_cycles": 2}

    monkeypatch.setattr(speculation, "measure_pass", measured)
    monkeypatch.setattr(speculation, "POSITIONS", (8, 20))
    monkeypatch.setattr(speculation, "CHECKED", (14,))
    first = measure_rtl(PROGRAM, lambda _text: None)
    assert sorted(counted) == [(rows, position) for rows in (1, 4, 8) for position in (8, 14, 20)]
    second = measure_rtl(PROGRAM, lambda _text: None)
    assert len(counted) == 9 and second[1] == first[1]
    assert second[0].measured == first[0].measured


def test_bytes_of_the_host(monkeypatch):
    """What the account says is what the driver writes and reads in one pass."""
    said, moved = host_bytes(PROGRAM), {"write": 0, "read": 0}
    with open_device("golden", "tiny") as device:
        session = device.load_decoder(PROGRAM).session()
        session.prefill(IDS[1:])
        for name in moved:
            real = getattr(type(device), name)

            def counted(self, region, offset, what, name=name, real=real):
                moved[name] += what if name == "read" else len(what)
                return real(self, region, offset, what)

            monkeypatch.setattr(type(device), name, counted)
        for tokens in (1, 4, 8):
            moved.update(write=0, read=0)
            session.verify([5] * tokens)
            assert moved == {
                "write": said[str(tokens)]["to_the_machine"],
                "read": said[str(tokens)]["from_the_machine"],
            }
