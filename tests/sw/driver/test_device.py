"""One contract, every device: the same tests on golden, Verilator and the simulated board."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch

from hw.config import PRESETS
from hw.isa import COMMAND_BYTES, Command, ErrorCode, Opcode, Region, Unit, Wait
from hw.registers import Register, region_address, register_address
from sim.board import simulated_board
from sw.driver import (
    AddressSpaceError,
    ConfigMismatchError,
    CycleLimitError,
    DeviceClosedError,
    DeviceOptionError,
    IdMismatchError,
    MachineError,
    UnknownDeviceError,
    open_device,
)
from tests.sw.driver.programs import (
    WORDS,
    CopyProgram,
    assemble,
    copy_program,
    halt,
    long_program,
    transfer,
)

CONFIG = PRESETS["tiny"]
TIMEOUT = 20.0  # the simulated board is as fast as the machine that it runs on


@pytest.fixture(scope="module")
def board():
    with closing(simulated_board(CONFIG)) as running:
        yield running


@pytest.fixture(params=["golden", "verilator", "board"])
def device(request):
    name = request.param
    options = {}
    if name == "board":
        name = f"board:{request.getfixturevalue('board').port}"
        options = {"timeout": TIMEOUT}
    with open_device(name, CONFIG, **options) as opened:
        yield opened


def data(seed=0):
    size = WORDS * CONFIG.activation_pitch
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_numpy_and_torch(device):
    executable = device.load(CopyProgram(CONFIG))
    result = executable(data())
    assert isinstance(result, np.ndarray) and (result == data()).all()
    result = executable(torch.from_numpy(data(1)))
    assert isinstance(result, torch.Tensor) and (result.numpy() == data(1)).all()


def test_two_programs_share_a_device(device):
    first, second = device.load(CopyProgram(CONFIG)), device.load(CopyProgram(CONFIG))
    for seed in range(4):
        executable = (first, second)[seed % 2]
        assert (executable(data(seed)) == data(seed)).all()


def test_counters(device):
    device.load(CopyProgram(CONFIG))(data())
    counters = device.counters()
    assert counters["commands"] == 3
    if device.has_cycles:
        size = WORDS * CONFIG.activation_pitch
        assert counters["dram_write_bytes"] == size
        assert counters["dram_read_bytes"] >= size + 3 * 32
        assert counters["utilization"] == 1000 / (16 * counters["cycles"])
        matrix = [v for k, v in counters.items() if k.startswith("matrix_")]
        assert sum(matrix) == counters["cycles"]
    else:
        assert "cycles" not in counters


def test_program_for_another_machine(device):
    other = CopyProgram(dataclasses.replace(CONFIG, name="other", row_slots=32))
    with pytest.raises(ConfigMismatchError, match=r"'other'.*row_slots 32 against 64"):
        device.load(other)


ERRORS = {
    "unknown opcode": (bytes(32) + assemble(halt()), ErrorCode.ILLEGAL_COMMAND, 0, "illegal"),
    "window": (
        assemble(transfer(Opcode.LOAD, Region.CONSTANT, 0), halt()),
        ErrorCode.DMA_WINDOW,
        0,
        "LOAD region=CONSTANT",
    ),
    "read-only": (
        assemble(Command(Opcode.BARRIER), transfer(Opcode.STORE, Region.PROGRAM, 0, 1), halt()),
        ErrorCode.DMA_WINDOW,
        1,
        "STORE",
    ),
    "on-chip": (
        assemble(
            transfer(
                Opcode.LOAD,
                Region.IO,
                0,
                address=CONFIG.activation_words - 2,
                waits=(Wait(Unit.STORE, 0), Wait(Unit.VECTOR, 2), None),
            ),
            halt(),
        ),
        ErrorCode.ONCHIP_RANGE,
        0,
        "[STORE, VECTOR -2]",
    ),
    "no HALT": (assemble(transfer(Opcode.LOAD, Region.IO, 0)), ErrorCode.PROGRAM_END, 1, "none"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_machine_errors(device, name):
    program, code, index, text = ERRORS[name]
    commands = device.load_commands(program, io_bytes=1024)
    with pytest.raises(MachineError) as caught:
        device.run(commands, max_cycles=100_000)
    assert caught.value.code == code
    assert caught.value.index == index
    assert code.name in str(caught.value) and text in str(caught.value)
    # The device goes on working.
    assert (device.load(CopyProgram(CONFIG))(data()) == data()).all()


def test_registers_that_commands_name(device):
    """What they hold outlives programs, errors and resets; a program that runs has them alone."""
    held = {number: 0x12345678 * number & 0xFFFFF for number in range(1, 16)}

    def check():
        found = device.read_registers(register_address(0), 16)
        assert found == [0, *held.values()]

    device.load_commands(copy_program(CONFIG), io_bytes=1024)
    for number in range(16):
        value = 0xFFF00000 | 0x12345678 * number & 0xFFFFFFFF  # bits beyond 20 are not there
        device.write_register(register_address(number), value)
    check()
    device.reset()
    check()
    change = {"register": 3, "value": 5, "predicate": 4}
    image = assemble(Command(Opcode.ADD, change), Command(Opcode.BARRIER)) + bytes(32)
    commands = device.load_commands(image)
    held[3] = (held[3] + 5) & 0xFFFFF
    with pytest.raises(MachineError, match="ILLEGAL_COMMAND"):
        device.run(commands, max_cycles=100_000)
    check()
    commands = device.load_commands(long_program(CONFIG), io_bytes=1 << 16)
    device.write_register(Register.CONTROL, 1)
    device.write_register(register_address(3), 1)
    assert device.wait(10_000_000)
    device.write_register(Register.INTERRUPT, 1)
    check()
    held[3] = 1
    device.write_register(register_address(3), 1)
    check()


def test_registers_move_and_drop_commands(device):
    pitch, words = CONFIG.activation_pitch, 2
    size = words * pitch
    load = transfer(Opcode.LOAD, Region.IO, 0, words, register=1, predicate=2, limit=-3)
    loaded = (Wait(Unit.LOAD_WEIGHTS, 0), None, None)
    store = transfer(Opcode.STORE, Region.IO, 8 * size, words, register=3, waits=loaded)
    program = assemble(load, store, Command(Opcode.ADD, {"register": 3, "value": words}), halt())
    commands = device.load_commands(program, io_bytes=16 * size)
    content = np.arange(16 * size, dtype=np.uint8)
    device.write(Region.IO, 0, content)
    for number, value in ((1, 2 * words), (2, 4), (3, words)):
        device.write_register(register_address(number), value)
    device.run(commands, max_cycles=100_000)
    content[9 * size : 10 * size] = content[2 * size : 3 * size]
    assert device.raw_counters()["commands"] == 4
    # Nothing is loaded any more, and stored behind it.
    device.write_register(register_address(2), 3)
    device.run(commands, max_cycles=100_000)
    content[10 * size : 11 * size] = content[2 * size : 3 * size]
    assert (device.read(Region.IO, 0, 16 * size) == content).all()
    assert device.raw_counters()["commands"] == 3
    assert device.read_register(register_address(3)) == 3 * words
    # Beyond 32 bits is beyond every window.
    device.write_register(register_address(3), (1 << 20) - 1)
    program = assemble(transfer(Opcode.STORE, Region.IO, (1 << 32) - pitch, 1, register=3), halt())
    commands = device.load_commands(program, io_bytes=64)
    with pytest.raises(MachineError, match="DMA_WINDOW"):
        device.run(commands, max_cycles=100_000)


def test_a_base_that_the_bus_cannot_reach(device, monkeypatch):
    commands = device.load_commands(copy_program(CONFIG), io_bytes=1024)
    high = region_address(Region.IO) + 4
    device.write_register(high, 1)
    with pytest.raises(MachineError, match="ADDRESS_BITS"):
        device.run(commands, max_cycles=100_000)
    assert device.raw_counters()["commands"] == 0
    device.write_register(high, 0)
    device.run(commands, max_cycles=100_000)

    bases = dict.fromkeys(Region, 0) | {Region.IO: (1 << 36) - 512}
    monkeypatch.setattr(device, "allocate", lambda sizes: bases)
    monkeypatch.setattr(device, "write_register", lambda *_: pytest.fail("windows were opened"))
    text = r"region IO would end at 0x10000001ff, and .*'tiny' have 32 bits: .*address_bits=37$"
    with pytest.raises(AddressSpaceError, match=text):
        device.load_commands(copy_program(CONFIG), io_bytes=1024)


def test_memory_ranges(device):
    with pytest.raises(ValueError, match="not open"):
        device.read(Region.IO, 0, 4)
    device.load_commands(copy_program(CONFIG), io_bytes=64)
    device.write(Region.IO, 60, np.arange(4, dtype=np.uint8))
    assert list(device.read(Region.IO, 60, 4)) == [0, 1, 2, 3]
    for offset, size in ((61, 4), (-1, 2), (64, 1)):
        with pytest.raises(ValueError, match="outside region IO"):
            device.read(Region.IO, offset, size)


def test_after_close(device):
    executable = device.load(CopyProgram(CONFIG))
    executable(data())
    device.close()
    device.close()
    for call in (
        lambda: executable(data()),
        lambda: device.load(CopyProgram(CONFIG)),
        lambda: device.load_commands(copy_program(CONFIG), io_bytes=64),
        lambda: device.run(3),
        lambda: device.counters(),
        lambda: device.reset(),
        lambda: device.check(),
        lambda: device.read(Region.IO, 0, 4),
        lambda: device.write(Region.IO, 0, data()),
        lambda: device.wait(10),
    ):
        with pytest.raises(DeviceClosedError, match=f"the {device.name} device is closed: open"):
            call()


def test_identity(device):
    device.check()
    device.config = dataclasses.replace(CONFIG, name="other", row_slots=32)
    with pytest.raises(IdMismatchError, match="fingerprint"):
        device.check()
    device.read_register = lambda address: 0
    with pytest.raises(IdMismatchError, match="not a Weft accelerator"):
        device.check()


def test_cycle_limit():
    with open_device("verilator", CONFIG) as device:
        commands = device.load_commands(copy_program(CONFIG), io_bytes=1024)
        with pytest.raises(CycleLimitError, match=r"within 100 cycles: . of 3 commands") as caught:
            device.run(commands, max_cycles=100)
        assert caught.value.limit == 100
        assert (device.load(CopyProgram(CONFIG))(data()) == data()).all()


def test_memory_options_cost_cycles():
    def cycles(**options):
        with open_device("verilator", CONFIG, **options) as device:
            assert (device.load(CopyProgram(CONFIG))(data()) == data()).all()
            return device.counters()["cycles"]

    base = cycles()
    # The program, the load and the store each wait once.
    assert cycles(memory_latency=164) - base in (200, 300)
    # One after another: three waits of 64 cycles, then the first command, load and store byte by
    # byte. The other commands arrive meanwhile.
    copied = 2 * WORDS * CONFIG.activation_pitch
    assert cycles(memory_width=1) >= 3 * 64 + COMMAND_BYTES + copied > base
    assert cycles(stall_seed=1) != base


def test_bus_errors():
    with open_device("verilator", CONFIG) as device:
        commands = device.load_commands(copy_program(CONFIG), io_bytes=1024)
        begin = device.memory.bases[Region.IO]
        device.model.set_fault(begin, begin + 1, writes=False)
        with pytest.raises(MachineError, match="AXI_READ"):
            device.run(commands, max_cycles=100_000)
        device.model.set_fault(begin, begin + 1024, reads=False)
        with pytest.raises(MachineError, match="AXI_WRITE: command 1, STORE"):
            device.run(commands, max_cycles=100_000)
        device.model.set_fault(0, 0)
        device.run(commands, max_cycles=100_000)


def test_open_device_errors(monkeypatch):
    with pytest.raises(UnknownDeviceError, match="'fpga'; known: board:PORT, golden, verilator"):
        open_device("fpga")
    with pytest.raises(DeviceOptionError, match="no option 'memory_size'; it has memory_latency"):
        open_device("verilator", CONFIG, memory_size=1)
    # Before anything is built, which takes a minute.
    monkeypatch.setattr("sw.driver.verilator.to_verilog", lambda *_: pytest.fail("exported"))
    for option in ("memory_latency", "memory_width"):
        with pytest.raises(DeviceOptionError, match=f"{option} must be at least 1"):
            open_device("verilator", CONFIG, **{option: 0})


def test_interrupt_register(device):
    executable = device.load(CopyProgram(CONFIG))
    executable(data())
    assert device.read_register(Register.INTERRUPT) & 1 == 0
