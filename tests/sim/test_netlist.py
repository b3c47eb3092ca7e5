"""Yosys' netlist of a small accelerator runs programs to the bytes of the golden model, and with a
wrong bit in a look-up table it does not.

`WEFT_TEST_NETLIST=tiny` adds presets by name; `make netlist` does.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from hw.config import AcceleratorConfig, get_config
from hw.isa import Region
from sim.model import ModelError
from sim.netlist import built_model, synthesised_accelerator
from sim.netlist_cells import Netlist
from sw.bench.cases import random_inputs
from sw.bench.workloads import encoder
from sw.compiler.lower.lower import lower
from sw.driver import Device, DeviceError, open_device
from tests.hw.programs import RandomProgram, assemble
from tests.sim.rtl import LEAST, SEED
from tests.sim.test_random_programs import load

CONFIGS = {
    config.name: config
    for config in (
        LEAST,
        *(get_config(name) for name in os.environ.get("WEFT_TEST_NETLIST", "").split()),
    )
}
PROGRAMS, STEPS, FAULTS = 6, 20, 20


@pytest.fixture(scope="module", params=CONFIGS)
def synthesised(request) -> tuple[AcceleratorConfig, Netlist]:
    config = CONFIGS[request.param]
    return config, synthesised_accelerator(config)


def run_random(device: Device, seed: int, limit: int = 200_000) -> bytes:
    """What a random program leaves in memory, within `limit` cycles."""
    generated = RandomProgram(device.config, random.Random(seed), STEPS)
    image = generated.image()
    device.run(load(device, assemble(generated.commands), image), max_cycles=limit)
    written = [device.read(r, 0, len(image[r])) for r in (Region.WORKSPACE, Region.IO)]
    return np.concatenate(written).tobytes()


def test_random_programs(synthesised):
    config, netlist = synthesised
    built = built_model(netlist)
    for stalls in (None, SEED):
        options = {"built": built, "memory_latency": 5, "stall_seed": stalls}
        with (
            open_device("golden", config) as golden,
            open_device("verilator", config, **options) as device,
        ):
            for seed in range(SEED, SEED + PROGRAMS):
                print(f"seed {seed}, stalls {stalls}")
                assert run_random(device, seed) == run_random(golden, seed)


def test_encoder_layer(synthesised):
    config, netlist = synthesised
    program = lower(encoder(8, 2, 16, 4, seed=SEED), config)
    inputs = program.prepare_inputs(*random_inputs(program.graph, SEED))
    outputs = []
    for name, options in (("golden", {}), ("verilator", {"built": built_model(netlist)})):
        with open_device(name, config, **options) as device:
            outputs.append(device.load(program).run_io(inputs).tobytes())
    assert outputs[0] == outputs[1]
    assert any(outputs[0])


def test_a_wrong_bit_is_noticed(synthesised):
    """One program cannot see every bit of the machine, but a netlist that is wrong can be seen."""
    config, netlist = synthesised
    with open_device("golden", config) as golden:
        wanted = run_random(golden, SEED)
    with open_device("verilator", config, built=built_model(netlist)) as device:
        assert run_random(device, SEED) == wanted
        limit = 2 * int(device.counters()["cycles"])
    rng = random.Random(SEED)
    noticed = 0
    for _ in range(FAULTS):
        wrong, place = netlist.with_wrong_bit(rng)
        try:
            with open_device("verilator", config, built=built_model(wrong)) as device:
                same = run_random(device, SEED, limit) == wanted
        except (DeviceError, ModelError) as error:  # it hangs, stops, or breaks the bus's rules
            same, place = False, f"{place}: {type(error).__name__}"
        print("unnoticed:" if same else "noticed:", place)
        noticed += not same
    assert noticed >= 2
