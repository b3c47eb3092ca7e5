"""The area model against synthesis: what it was fitted to, and what it was not."""

from __future__ import annotations

import numpy as np

from sw.area.model import AreaModel, block_rams, multipliers, read_samples


def test_multipliers_and_block_rams_are_counted():
    for sample in read_samples():
        if sample.whole:
            total = sample.total
            assert multipliers(sample.config) == total.multipliers
            assert block_rams(sample.config) == total.block_rams


def test_held_out():
    samples = read_samples()
    held = [sample for sample in samples if sample.held and sample.whole]
    errors = AreaModel(samples).errors(held)
    assert len(held) >= 4
    assert np.abs(errors["luts"]).mean() < 0.05 and np.abs(errors["luts"]).max() < 0.12
    assert np.abs(errors["ffs"]).max() < 0.12
