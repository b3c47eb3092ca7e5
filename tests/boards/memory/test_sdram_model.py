"""The behavioural SDRAM: every rule is broken on purpose."""

import json
import re

import pytest

from sim.sdram import SOURCE, SdramModel, Violation, model_cycles
from tests.boards.memory.bench import small
from tests.boards.memory.cocotb_sdram_model import BROKEN
from tests.cocotb_runner import run

HZ = 100e6
# Times that let each rule be broken alone: t_rc is longer than t_ras and t_rp together.
PART = small(
    t_rcd=30, t_rp=20, t_ras=50, t_ras_max=3000, t_rc=80, t_rfc=70, t_rrd=40, t_wr=20,
    t_mrd_cycles=2, retention=20_000, power_up=200,
)  # fmt: skip


@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_model(simulator):
    run(
        SdramModel(PART, HZ),
        "tests.boards.memory.cocotb_sdram_model",
        simulators=(simulator,),
        name="sdram_model",
        env={"WEFT_CYCLES": json.dumps(model_cycles(PART, HZ))},
        sources=[SOURCE],
    )


def test_codes_are_those_of_the_model_and_each_is_broken_by_a_test():
    codes = dict(re.findall(r"localparam (\w+) = (\d+);", SOURCE.read_text()))
    assert {v.name: v for v in Violation if v} == {
        name: int(code) for name, code in codes.items() if name in Violation.__members__
    }
    assert {code for code, _, _ in BROKEN.values()} == set(Violation) - {Violation.NONE}
