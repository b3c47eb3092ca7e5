"""What the emitter refuses: a bug of lowering must not become a wrong program."""

from __future__ import annotations

import pytest

from hw.config import PRESETS
from hw.isa import Opcode
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
    Emitter(CONFIG).emit(Opcode.NORM, **NORM, res_dst_address=last)
    with pytest.raises(AssertionError, match="outside its memory"):
        Emitter(CONFIG).emit(Opcode.NORM, **NORM, res_dst_address=last + 1)
