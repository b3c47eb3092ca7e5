"""Scratchpad: every port under random traffic."""

import gc

import pytest

from hw.memory.scratchpad import Scratchpad
from tests.cocotb_runner import run


@pytest.mark.parametrize(
    ("width", "depth", "granules", "readers", "writers", "banks", "simulators"),
    [
        (32, 256, 2, 2, 3, 2, ("icarus", "verilator")),
        (24, 10, 3, 2, 2, 2, ("icarus",)),
        (16, 11, 1, 1, 2, 1, ("icarus", "verilator")),
        (8, 384, 1, 1, 1, 2, ("icarus",)),
        (16, 320, 2, 3, 3, 4, ("icarus", "verilator")),
        (8, 12, 1, 3, 2, 4, ("icarus",)),
    ],
)
def test_traffic(width, depth, granules, readers, writers, banks, simulators):
    shape = {
        "width": width,
        "depth": depth,
        "granules": granules,
        "readers": readers,
        "writers": writers,
        "banks": banks,
    }
    run(
        Scratchpad(**shape, poison_collisions=True),
        "tests.hw.memory.cocotb_scratchpad",
        simulators=simulators,
        name="scratchpad",
        env={name.upper(): str(value) for name, value in shape.items()},
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"granules": 3}, "granules"), ({"banks": 3}, "banks"), ({"depth": 15}, "multiple")],
)
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_refused(changes, text):
    shape = {"width": 32, "depth": 16, "granules": 1, "banks": 2}
    with pytest.raises(ValueError, match=text):
        Scratchpad(**(shape | changes))
    gc.collect()  # Amaranth warns when it deletes the component, which must happen here
