"""How sure a model is, and the threshold that calibration sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.decoding.self_test import (
    TESTS,
    calibrate,
    check_threshold,
    doubted,
    log_probabilities,
    self_test,
)
from tests.sim.rtl import SEED


def test_tests_by_definition():
    rng = np.random.default_rng(SEED)
    for seed in range(20):
        logits = rng.normal(0, 3, (5, int(rng.integers(2, 12))))
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        p = -np.sort(-chances, axis=1)
        logs = log_probabilities(logits)
        np.testing.assert_allclose(np.exp(logs), p, rtol=1e-9)
        np.testing.assert_allclose(TESTS["margin"](logs), 1 - p[:, 1] / p[:, 0], atol=1e-9)
        np.testing.assert_allclose(TESTS["probability"](logs), p[:, 0], rtol=1e-9)
        entropy = 1 + (p * np.log(p)).sum(axis=1) / math.log(p.shape[1])
        np.testing.assert_allclose(TESTS["entropy"](logs), entropy, atol=1e-9, err_msg=str(seed))


@pytest.mark.parametrize("name", TESTS)
def test_ends_of_the_scale(name):
    sure = TESTS[name](log_probabilities([0.0, -900.0, -1e6]))
    unsure = TESTS[name](log_probabilities([3.0, 3.0, 3.0]))
    assert sure == pytest.approx(1) and unsure == pytest.approx({"probability": 1 / 3}.get(name, 0))
    assert self_test(name) is TESTS[name]


def test_thresholds_0_and_1_are_never_and_always():
    sure = np.array([0.0, 0.3, 1.0])
    assert not doubted(sure, 0).any() and doubted(sure, 1).all()
    np.testing.assert_array_equal(doubted(sure, 0.3), [True, False, False])


def test_calibration_is_the_least_threshold_that_will_do():
    """Against all thresholds there are, one after the other; ties and counts among them."""
    for seed in range(SEED, SEED + 60):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 60))
        sure = rng.integers(0, 30, count) / 30 if seed % 2 else rng.random(count)
        of = rng.integers(1, 20, count) if seed % 3 else np.ones(count, int)
        wrong = rng.binomial(of, np.clip(0.3 * (1 - sure), 0, 1))
        agreement = float(rng.choice([0.5, 0.8, 0.9, 0.99, 1.0]))
        found = calibrate(sure, wrong, agreement, of)

        def enough(threshold: float, sure=sure, wrong=wrong, of=of, agreement=agreement) -> bool:
            left = wrong[~doubted(sure, threshold)].sum()
            return (left + 1) / (of.sum() + 1) <= 1 - agreement

        candidates = [0.0, *np.nextafter(sorted(sure), 1)]
        assert found == next((t for t in candidates if enough(t)), 1.0), f"seed {seed}"
        assert found == 1.0 or enough(found)


def test_what_was_calibrated_holds_for_other_answers():
    """On average of many draws: what disagrees is within what was allowed."""
    rng, disagreed, wanted = np.random.default_rng(SEED), [], 0.95
    for _ in range(300):
        sure = rng.random(400)
        wrong = rng.random(400) < 0.3 * (1 - sure)
        threshold = calibrate(sure[:200], wrong[:200], wanted)
        disagreed.append((wrong[200:] & ~doubted(sure[200:], threshold)).mean())
    error = np.std(disagreed) / math.sqrt(len(disagreed))
    assert np.mean(disagreed) <= 1 - wanted + 3 * error
    assert np.mean(disagreed) >= 0.5 * (1 - wanted)  # and not without need


def test_bad_input():
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match=f"threshold {threshold}: a number from 0"):
            check_threshold(threshold)
    for agreement in (0, -1, 1.01, math.nan):
        with pytest.raises(InputError, match=f"agreement {agreement}: a share above 0, at most 1"):
            calibrate([0.5], [0], agreement)
    with pytest.raises(InputError, match="test 'luck': there are margin, probability, entropy"):
        self_test("luck")
    for logits in (3.0, [3.0], np.zeros((4, 1))):
        with pytest.raises(InputError, match="has no self-test: it takes two logits"):
            log_probabilities(logits)
