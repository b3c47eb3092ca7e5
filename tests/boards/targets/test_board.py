"""Boards: clocks, and pins as amaranth-boards has them."""

import dataclasses
import re

import pytest

from boards.memory.sdram_part import SdramPart
from boards.targets import top
from boards.targets.board import BOARDS, MHZ, get_board, read_window
from boards.targets.prepare import RTLIL, convert, prepare
from hw.config import PRESETS, ConfigError
from tests.boards.targets.small import SmallSystem

PADS = {
    "uart": ("rx", "tx"),
    "sdram": ("clk", "clk_en", "cs", "ras", "cas", "we", "ba", "a", "dq", "dqm"),
    "esp32": ("gpio0",),
}


def _expected(board) -> dict[str, str]:
    """Site of every pad's bit, by the name of its port, from the platform's resources."""
    platform = board.new_platform()

    def named(prefix, pins):
        return {f"{prefix}__io[{i}]": site for i, site in enumerate(pins.names)}

    sites = named(f"{platform.default_clk}_0", platform.lookup(platform.default_clk, 0).ios[0])
    for name, signals in PADS.items():
        if (name, 0) in platform.resources:
            for signal in platform.lookup(name, 0).ios:
                if signal.name in signals:
                    sites |= named(f"{name}_0__{signal.name}", signal.ios[0])
    for i in range(4):
        if ("led", i) in platform.resources:
            sites |= named(f"led_{i}", platform.lookup("led", i).ios[0])
        elif ("rgb_led", i) in platform.resources:
            green = next(s for s in platform.lookup("rgb_led", i).ios if s.name == "g")
            sites |= named(f"rgb_led_{i}__g", green.ios[0])
    return sites


def _sites(text: str) -> dict[str, str]:
    found = re.findall(r'LOCATE COMP "(\S+)" SITE "(\S+)"', text)
    found += re.findall(r"^set_io (\S+) (\S+)", text, re.MULTILINE)
    return {name if "[" in name else f"{name}[0]": site for name, site in found}


@pytest.mark.parametrize("name", BOARDS)
def test_every_pin_is_the_platforms(name, monkeypatch):
    monkeypatch.setattr(top, "System", SmallSystem)
    board = BOARDS[name]
    files = convert(board, board.config, None)
    rtl = files.pop(RTLIL)
    (text,) = files.values()
    sites = _sites(text)
    assert sites == _expected(board)
    assert len(set(sites.values())) == len(sites)
    assert re.search(rf"{board.oscillator_hz / (1 if 'HZ' in text else MHZ):.1f}", text)
    assert ("EHXPLLL" in rtl) == name.startswith(("ulx3s", "ecpix5"))
    if isinstance(board.memory, SdramPart):
        # All of its outputs and inputs have their register in the pad.
        pads = sum(name.startswith("sdram") for name in sites)
        assert rtl.count(r"cell \IFS1P3DX") == 16
        assert len(re.findall(r"cell \\OFS1P3DX \\o_ff", rtl)) == pads - 1 + 1  # but the clock; tx
        assert rtl.count(r"cell \ODDRX1F") == 1


def test_names_and_clocks():
    with pytest.raises(ConfigError, match="unknown board 'ulx4'; boards: ulx3s, ecpix5-45f"):
        get_board("ulx4")
    ulx3s = get_board("ulx3s")
    assert ulx3s.clocks(100).hz == 100 * MHZ
    with pytest.raises(ConfigError, match="no whole number of cycles"):
        ulx3s.clocks(10)
    icebreaker = get_board("icebreaker")
    assert icebreaker.clocks().wanted_hz is None and icebreaker.clocks().hz == 12 * MHZ
    with pytest.raises(ConfigError, match="iCEBreaker: only its oscillator's 12 MHz, not 24"):
        icebreaker.clocks(24)
    for mhz in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ConfigError, match=f"iCEBreaker: no clock has {mhz} MHz"):
            icebreaker.clocks(mhz)
    for mhz in (0, -100, 1e9, 1e303):
        with pytest.raises(ConfigError, match=r"clock: output of .* MHz; a PLL takes 6.25 to 400"):
            ulx3s.clocks(mhz)
    slow = dataclasses.replace(ulx3s, baud=115_200)
    assert slow.clocks(20).hz == 20 * MHZ


def test_a_bus_that_the_memory_cannot_have(tmp_path):
    wide = dataclasses.replace(PRESETS["base"], name="far", address_bits=40)
    with pytest.raises(ConfigError, match="configuration 'far': boards have 32 address bits"):
        prepare(get_board("ulx3s"), wide, None, tmp_path)


def test_words_are_taken_while_they_last():
    """Delays out of the FPGA 3 to 4 ns and in 0.3 to 1 ns; the memory's 2.5 to 6 ns. Cycle 0
    begins when a READ's register in the pad takes it."""
    for hz in range(50 * MHZ, 121 * MHZ, MHZ):
        period = 1e9 / hz
        for latency in (2, 3):
            phase, pad_cycles = read_window(latency, hz)
            begins = (phase + latency - 1) * period + 4 + 6 + 1
            ends = (phase + latency) * period + 3 + 2.5 + 0.3
            taken = (latency + pad_cycles - 1) * period
            assert begins < taken < ends, (hz, phase, pad_cycles)
            assert 1.5 < phase * period and 1 < (1 - phase) * period
