"""Word sizes of every preset: whole beats, and no field too narrow for them."""

import pytest

from hw.config import PRESETS
from hw.dma.burst import transfer_layout
from hw.dma.transfer import pitch
from hw.isa import Memory
from tests.hw.dma.bench import CONFIGS


@pytest.mark.parametrize("config", [*PRESETS.values(), *CONFIGS.values()], ids=lambda c: c.name)
def test_pitch(config):
    widest = 0
    for memory in Memory:
        if memory:
            beats, rest = divmod(pitch(config, memory), config.bus_bytes)
            assert rest == 0 and beats & (beats - 1) == 0 and beats
            widest = max(widest, beats.bit_length() - 1)
    field = transfer_layout(config)["word_beats_log2"]
    assert widest < 1 << field.width
