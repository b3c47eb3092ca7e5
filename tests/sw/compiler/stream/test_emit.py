"""What the emitter refuses: a bug of lowering must not become a wrong program."""

from __future__ import annotations

import pytest

from hw.config import PRESETS
from hw.isa import IsaError, Opcode
from sw.compiler.stream.emit import Emitter

CONFIG = PRESETS["tiny"]
NORM = {"rows": 2, "groups": 3, "res_stride": 3, "write_residual": 1, "features": 6}


def test_a_norm_in_place_or_on_other_words():
    emitter = Emitter(CONFIG)
    for target in (0, 6):
        emitter.emit(Opcode.NORM, **NORM, res_dst_address=target)
    with pytest.raises(AssertionError, match=r"NORM overlaps.*'res_dst_address': 5"):
        emitter.emit(Opcode.NORM, **NORM, res_dst_address=5)


def test_words_beyond_a_memory():
    last = CONFIG.residual_words - 6
    for target in (last, last + 1):
        emitter = Emitter(CONFIG)
        emitter.place("encoder.norm")
        emitter.emit(Opcode.NORM, **NORM, res_dst_address=target)
        if target == last:
            emitter.stream()
            continue
        end = CONFIG.residual_words
        text = rf"encoder.norm: NORM .*: words {target} to {end} of RESIDUAL are outside its memory"
        with pytest.raises(AssertionError, match=text):
            emitter.stream()


def test_fields_that_a_command_does_not_have_or_hold():
    with pytest.raises(AssertionError, match="NORM has no such field"):
        Emitter(CONFIG).emit(Opcode.NORM, **NORM, accumulate=1)
    emitter = Emitter(CONFIG)
    emitter.emit(Opcode.NORM, **NORM | {"rows": 4096})
    with pytest.raises(IsaError, match=r"NORM.rows = 4096 is not in 1..4095"):
        emitter.stream()
