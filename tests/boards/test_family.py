"""Capacity."""

import pytest

from boards.family import ECP5, Area, CapacityError, Device, check_capacity

SMALL = Device("LFE5U-0F", ECP5, Area(1000, 1000, 4, 4), ())


def test_what_fits_and_what_does_not():
    check_capacity(Area(1000, 1000, 4, 4), SMALL, "blinker")
    with pytest.raises(CapacityError) as caught:
        check_capacity(Area(1500, 10, 4, 6), SMALL, "blinker")
    text = str(caught.value)
    assert "blinker does not fit the LFE5U-0F" in text
    assert "1,500 LUTs of 1,000 (500 too many, 150%)" in text
    assert "6 block RAMs of 4 (2 too many, 150%)" in text
    assert "fewer rows, columns or lanes" in text and "smaller memories" in text
    assert "registers" not in text and "multipliers of" not in text
