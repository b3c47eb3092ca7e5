"""Random modules: each is compiled to what PyTorch computes, or refused in one clear line."""

from __future__ import annotations

import logging
import os

import pytest
import torch

from tests.sw.compiler.module_checks import check_module
from tests.sw.compiler.random_modules import random_module

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
MODULES = int(os.environ.get("WEFT_TEST_MODULES", "300"))
PARTS = 10
INTEGERS, PROGRAM = 10, 40
"""Every tenth module also in integers, every fortieth as a program on the golden model."""


@pytest.mark.parametrize("part", range(PARTS))
def test_equal_or_refused(part: int) -> None:
    torch.set_num_threads(1)
    logging.getLogger("torch.__trace").propagate = False  # else pytest has it all written
    equal = 0
    numbers = range(part, MODULES, PARTS)
    for number in numbers:
        seed = 1_000_000 * SEED + number
        item = random_module(seed)
        place = number // PARTS
        try:
            found = check_module(item, integers=place % INTEGERS == 0, program=place % PROGRAM == 0)
        except Exception as error:
            text = f"random_module({seed}): {type(error).__name__}: {error}"
            raise AssertionError(f"{text}\n{item}") from error
        equal += found == "equal"
    print(f"seed {SEED}, part {part}: {equal} of {len(numbers)} modules compiled")
    assert equal > 0.1 * len(numbers)  # else the test would say little
