"""Times of a part in cycles; parts and clocks that cannot work."""

import pytest

from boards.memory.bursts import check_pages
from boards.memory.sdram_commands import make_plan
from boards.memory.sdram_part import SdramPart
from sim.sdram import model_cycles


def test_cycles():
    part = SdramPart()
    assert part.bytes == 32 << 20
    fast, slow = part.cycles(100e6), part.cycles(25e6)
    assert (fast.rcd, fast.rp, fast.ras, fast.rc, fast.rfc, fast.rrd, fast.wr) == (
        3, 3, 5, 7, 7, 2, 2)  # fmt: skip
    assert (fast.ras_max, fast.retention, fast.power_up) == (10_000, 6_400_000, 20_000)
    assert (slow.rcd, slow.rp, slow.ras, slow.rc, slow.rfc, slow.rrd, slow.wr) == (
        1, 1, 2, 2, 2, 1, 1)  # fmt: skip
    # A whole number of cycles stays one: 21 ns at 1 GHz / 7 are 3 cycles.
    assert SdramPart(t_rcd=21).cycles(1e9 / 7).rcd == 3
    assert SdramPart(t_rcd=21.1).cycles(1e9 / 7).rcd == 4


@pytest.mark.parametrize("hz", [33e6, 50e6, 99.9e6, 100e6, 133e6, 1e9 / 6, 1e9 / 7])
def test_model_and_part_round_the_same(hz):
    part = SdramPart()
    assert {k.removeprefix("T_").lower(): v for k, v in model_cycles(part, hz).items()} == {
        **vars(part.cycles(hz)),
        "bank_bits": 2,
        "row_bits": 13,
        "column_bits": 9,
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": 5000}, "rows must be a power of two from 2 to 8192: 5000"),
        ({"columns": 2048}, "columns must be a power of two from 64 to 1024: 2048"),
        ({"banks": 8}, "banks must be a power of two from 2 to 4: 8"),
        ({"cas_latency": 4}, "cas_latency must be 2 or 3: 4"),
        ({"t_rp": 0}, "t_rp must be positive: 0"),
    ],
)
def test_no_such_part(changes, text):
    with pytest.raises(ValueError, match=text):
        SdramPart(**changes)


def test_no_such_controller():
    with pytest.raises(ValueError, match=r"25 MHz is too slow .* every 195 cycles"):
        make_plan(SdramPart(), 25e6, 4)
    with pytest.raises(ValueError, match="4, 8 or 16 bytes: 2"):
        make_plan(SdramPart(), 100e6, 2)
    with pytest.raises(ValueError, match="whole pages of 4096 bytes: 2048"):
        check_pages(2048)
