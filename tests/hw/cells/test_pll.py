"""Dividers of the PLL, against its limits; both forms."""

import random

import pytest
from amaranth.back import rtlil

from hw.cells.pll import MHZ, Pll, find_dividers
from hw.cells.technology import Technology
from hw.config import ConfigError

SEED = 6


def test_dividers_keep_to_every_limit():
    """Limits of the ECP5 data sheet (FPGA-DS-02012), sysCLOCK PLL timing; phase detector and
    dividers as there."""
    rng = random.Random(SEED)
    print("seed", SEED)
    reached = 0
    for _ in range(300):
        given = rng.choice((12, 16, 25, 48, 100, rng.randint(10, 200))) * MHZ
        wanted = rng.randint(7 * MHZ, 350 * MHZ)
        try:
            d = find_dividers(given, wanted)
        except ConfigError as error:
            assert "no PLL makes" in str(error)
            continue
        reached += 1
        assert 1 <= d.reference <= 128 and 1 <= d.feedback <= 80
        assert 1 <= d.loop <= 128 and 1 <= d.output <= 128
        detector = given / d.reference
        looped = detector * d.feedback
        oscillator = looped * d.loop
        assert 10e6 <= detector <= 400e6
        assert 3.125e6 <= looped <= 400e6
        assert 400e6 <= oscillator <= 800e6
        assert abs(oscillator / d.output - wanted) <= 0.01 * wanted
        assert float(d.output_hz(given)) == pytest.approx(oscillator / d.output)
    assert reached > 280


def test_the_nearest_of_all():
    """Against a search through every divider there is."""
    rng = random.Random(SEED)
    for _ in range(5):
        given, wanted = 25 * MHZ, rng.randint(20, 200) * MHZ + rng.randint(0, 999_999)
        errors = [
            abs(given * feedback * loop / reference / output - wanted)
            for reference in (1, 2)
            for feedback in range(1, 81)
            for loop in range(1, 65)
            if 400e6 <= given * feedback * loop / reference <= 800e6
            and 6.25e6 <= given * feedback / reference <= 400e6
            for output in range(1, 65)
        ]
        got = find_dividers(given, wanted).output_hz(given)
        assert abs(got - wanted) == pytest.approx(min(errors), abs=1)


@pytest.mark.parametrize("mhz", [50, 60, 75, 80, 100])
def test_usual_clocks_are_exact(mhz):
    assert find_dividers(25 * MHZ, mhz * MHZ).output_hz(25 * MHZ) == mhz * MHZ


def test_errors():
    for given, wanted, text in (
        (25, 500, "output of 500 MHz; a PLL takes 6.25 to 400"),
        (25, 5, "output of 5 MHz"),
        (1, 50, "input of 1 MHz; a PLL takes 8 to 400"),
        (19, 225, "no PLL makes 225 MHz from 19 MHz; 228.000 is nearest"),
    ):
        with pytest.raises(ConfigError, match=text):
            find_dividers(given * MHZ, wanted * MHZ)


def test_forms():
    pll = Pll(25 * MHZ, 60 * MHZ, 101 * MHZ, phase=0.25)
    d = pll.dividers
    assert (d.output, pll.memory_hz) == (10, 100 * MHZ)
    ports = [pll.i, pll.o, pll.o_memory, pll.o_shifted]
    text = rtlil.convert(pll, platform=Technology.ECP5, ports=ports)
    assert text.count(r"cell \EHXPLLL") == 1
    assert text.count(r"cell \DCCA") == 3
    for name, value in (
        ("CLKI_DIV", d.reference),
        ("CLKFB_DIV", d.feedback),
        ("CLKOP_DIV", d.loop),
        ("CLKOS_DIV", d.output),
        ("CLKOS2_DIV", 6),
        ("CLKOS3_DIV", 6),
        ("CLKOS_CPHASE", d.output - 1),
        ("CLKOS2_CPHASE", 5 + 2),
        ("CLKOS3_CPHASE", 5),
    ):
        assert f"parameter \\{name} {value}\n" in text, name
    plain = Pll(25 * MHZ, 60 * MHZ)
    assert "EHXPLLL" not in rtlil.convert(plain, ports=[plain.i, plain.o])
