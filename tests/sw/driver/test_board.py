"""The complete board in Verilator behind a pseudo-terminal, driven by the unmodified driver."""

import dataclasses
import errno
import os
import pty
import random
import re
import signal
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from click.testing import CliRunner

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import Region
from hw.registers import Register, State
from sim.board import simulated_board
from sim.verilator import DRAFT_CXX_FLAGS
from sw.bench.decoders import DecoderShape, decoder
from sw.cli.main import cli
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.driver import (
    BoardDevice,
    BusError,
    CycleLimitError,
    DeviceError,
    IdMismatchError,
    LinkError,
    MemorySizeError,
    PortError,
    open_device,
    serial_line,
)
from sw.driver.board import LONG_BYTES, ZERO_BLOCK_BYTES, _parts
from sw.driver.link import Link
from sw.driver.serial_line import SerialLine, _why
from tests.boards.link.model import ModelBoard, ModelLine
from tests.sim.rtl import LEAST
from tests.sw.compiler.random_graphs import random_encoder, random_inputs
from tests.sw.driver.programs import WORDS, CopyProgram, long_program

CONFIG = PRESETS["tiny"]
TIMEOUT = 20.0


@pytest.fixture(scope="module")
def board():
    with closing(simulated_board(CONFIG)) as running:
        yield running


@pytest.fixture
def device(board):
    with open_device(f"board:{board.port}", CONFIG, timeout=TIMEOUT) as opened:
        assert isinstance(opened, BoardDevice)
        yield opened


def data(seed: int = 0, config: AcceleratorConfig = CONFIG) -> np.ndarray:
    size = WORDS * config.activation_pitch
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_a_transformer_gives_the_bytes_of_the_golden_model(device):
    graph = random_encoder(3, batch=1, tokens=7, hidden=16, heads=2, ffn=20, masked=True)
    program, inputs = lower(graph, CONFIG), random_inputs(graph, 3)
    memories = []
    with open_device("golden", CONFIG) as golden:
        for opened in (golden, device):
            opened.load(program)(*inputs)
            memories.append(
                [
                    opened.read(Region.WORKSPACE, 0, program.workspace_bytes),
                    opened.read(Region.IO, 0, program.io_bytes),
                ]
            )
    for expected, found in zip(*memories, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert device.counters()["matrix_busy"] > 0 and device.link.repeats == 0


def test_a_sequence_grows_on_the_board(device):
    """Its caches stay in the board's memory, and its next tokens in the accelerator's registers."""
    shape = DecoderShape(
        hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=24
    )
    program = lower_decoder(decoder(shape), CONFIG, (1, 4))
    grown = []
    with open_device("golden", CONFIG) as golden:
        for opened in (golden, device):
            session = opened.load_decoder(program).session()
            predictions = [session.prefill([5, 60, 7, 88, 2])]
            for _ in range(3):
                predictions.append(session.step(predictions[-1].best))
            predictions.append(session.verify([9, 8, 7, 6]))
            grown.append([(p.tokens.tolist(), p.log_probabilities.tolist()) for p in predictions])
    assert grown[0] == grown[1]
    assert device.link.repeats == 0


def test_weft_run_on_the_board(board, tmp_path):
    graph = random_encoder(4, batch=1, tokens=5, hidden=8, heads=2, ffn=12, masked=False)
    program, inputs = lower(graph, CONFIG), random_inputs(graph, 4)
    program.save(tmp_path / "small.weft")
    arguments = ["run", str(tmp_path / "small.weft")]
    for number, value in enumerate(inputs):
        np.save(tmp_path / f"in{number}.npy", value)
        arguments += ["--input", str(tmp_path / f"in{number}.npy")]
    results = []
    for kind, name in (("golden", "golden"), ("board", f"board:{board.port}")):
        paths = [tmp_path / f"{kind}{number}.npy" for number in range(len(program.outputs))]
        outputs = [part for path in paths for part in ("--output", str(path))]
        result = CliRunner().invoke(cli, [*arguments, "--device", name, *outputs])
        assert result.exit_code == 0, result.output
        results.append([np.load(path) for path in paths])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "cycles" in result.output


def test_weft_bench_on_a_board_of_its_own(interruptible):
    command = [sys.executable, "-m", "sw.cli.main", "simulate-board", "--config", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            arguments = ["bench", "gemm", "--shape", "6x12x8", "--config", "tiny", "--device", name]
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
            assert re.search("equal to golden, every byte.*yes", result.output)
            refused = CliRunner().invoke(cli, [*arguments, "--vcd", "x.vcd"])
            assert "--trace, --vcd and --plain-rtl are for --device verilator" in str(
                refused.exception
            )
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_cycle_limit(device):
    commands = device.load_commands(long_program(CONFIG), io_bytes=1 << 15)
    with pytest.raises(CycleLimitError, match=r"within 20000 cycles: \d+ of \d+ commands"):
        device.run(commands, max_cycles=20_000)
    assert (device.load(CopyProgram(CONFIG))(data()) == data()).all()


def test_progress_tells_the_cycles(device):
    seen = []
    commands = device.load_commands(long_program(CONFIG), io_bytes=1 << 15)
    device.run(commands, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] > 1000


def test_a_host_that_leaves_in_the_middle_of_a_program(board):
    with open_device(f"board:{board.port}", CONFIG, timeout=TIMEOUT) as first:
        commands = first.load_commands(long_program(CONFIG), io_bytes=1 << 15)
        first.write_register(Register.PROGRAM_COMMANDS, commands)
        first.write_register(Register.CONTROL, 1)
        assert first.read_register(Register.STATUS) & 3 == State.RUNNING
    with open_device(f"board:{board.port}", CONFIG, timeout=TIMEOUT) as second:
        assert second.read_register(Register.STATUS) & 3 == State.IDLE
        assert (second.load(CopyProgram(CONFIG))(data()) == data()).all()


def test_another_configuration(board):
    other = dataclasses.replace(CONFIG, name="other", row_slots=32)
    with pytest.raises(IdMismatchError, match="'other'"):
        open_device(f"board:{board.port}", other, timeout=TIMEOUT)


def test_a_port_has_one_user(board, device):
    with pytest.raises(PortError, match="in use by another program"):
        open_device(f"board:{board.port}", CONFIG)


def test_a_program_that_does_not_fit(device):
    with pytest.raises(MemorySizeError, match=r"io 40,000,000.* has 33,554,432: .* too few"):
        device.load_commands(bytes(32), io_bytes=40_000_000)
    with pytest.raises(ValueError, match="not open"):
        device.read(Region.IO, 0, 1)


def test_two_programs_that_do_not_fit(device, monkeypatch):
    """Each of them would."""
    shape = DecoderShape(
        hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=24
    )
    program = lower_decoder(decoder(shape), CONFIG, (1,))
    identity = device.link.identity._replace(memory_bytes=30_000)
    monkeypatch.setattr(device.link, "identity", identity)
    device.load_decoder(program).session().step(5)
    both = device.load_decoders(program, program)
    sessions = [model.session() for model in both]
    with pytest.raises(DeviceError, match=r"2 programs together need .* bytes of memory, the boa"):
        sessions[0].step(5)
    device.load_decoder(program).session().step(5)


def test_a_board_with_on_chip_memory():
    size = 1 << 16
    with (
        closing(simulated_board(LEAST, ram_bytes=size, cxx_flags=DRAFT_CXX_FLAGS)) as board,
        open_device(f"board:{board.port}", LEAST, timeout=TIMEOUT) as device,
    ):
        assert isinstance(device, BoardDevice)
        assert (device.load(CopyProgram(LEAST))(data(config=LEAST)) == data(config=LEAST)).all()
        with pytest.raises(MemorySizeError, match=r"needs 70,080 bytes .*: 4,544 too few"):
            device.load_commands(bytes(32), io_bytes=70_000)
        with pytest.raises(BusError, match="write at address 0x10000"):
            device.link.write(size - 8, bytes(16))
        assert (device.load(CopyProgram(LEAST))(data(1, LEAST)) == data(1, LEAST)).all()


def test_a_line_that_takes_nothing(monkeypatch):
    """A simulated board that was stopped: an error, where waiting would last for ever."""
    monkeypatch.setattr(serial_line, "WRITE_SECONDS", 0.2)
    master, slave = pty.openpty()
    line = SerialLine(os.ttyname(slave), 3_000_000)
    with pytest.raises(LinkError, match="takes no more bytes"):
        line.write(bytes(1 << 20))
    line.close()
    os.close(master)
    os.close(slave)


def test_ports_that_cannot_be_opened(tmp_path):
    with pytest.raises(PortError, match=r"there is no port .*nothing: is the board plugged in"):
        open_device(f"board:{tmp_path}/nothing", CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(PortError, match="cannot open port"):
        open_device(f"board:{tmp_path}/file", CONFIG)
    assert "join the group that owns it" in _why("x", OSError(errno.EACCES, "denied"))


# --- without the simulated board: what no real one does on demand ------------------------------


def on_model(board: ModelBoard) -> tuple[BoardDevice, ModelLine]:
    line = ModelLine(board)
    device = BoardDevice.__new__(BoardDevice)
    link = Link.__init__

    def virtual(self, *args, **options):
        link(self, *args, clock=line.clock, rng=random.Random(0), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "__init__", virtual)
        device.__init__(CONFIG, line)
    return device, line


def identified() -> ModelBoard:
    board = ModelBoard(1 << 18)
    for register, value in (
        (Register.ID, 0x57454654),
        (Register.VERSION, open_device("golden", CONFIG).read_register(Register.VERSION)),
        (Register.FINGERPRINT, CONFIG.fingerprint()),
    ):
        board.registers[register] = value
    return board


def test_after_a_power_cycle_everything_is_put_there_again():
    board = identified()
    device, line = on_model(board)
    program = CopyProgram(CONFIG)
    executable = device.load(program)
    assert device.loaded is executable.memory
    board.power_cycle()
    with pytest.raises(LinkError, match="restarted"):
        device.write(Region.IO, 0, data())
    assert device.loaded is None
    executable.place()
    commands = program.commands
    assert bytes(device.read(Region.PROGRAM, 0, len(commands))) == commands.tobytes()
    board.registers[Register.FINGERPRINT] ^= 1  # another bitstream was loaded meanwhile
    board.power_cycle()
    with pytest.raises(LinkError, match="restarted"):
        executable.device.read(Region.IO, 0, 1)
    with pytest.raises(IdMismatchError, match="fingerprint"):
        executable.place()
    device.close()
    assert line.closed


def test_zeros_are_not_sent():
    board = identified()
    device, line = on_model(board)
    device.load_commands(bytes(32), io_bytes=40_000)
    board.memory[:] = bytes([7]) * len(board.memory)
    content = np.zeros(40_000, np.uint8)
    content[20_000:20_010] = 9
    before = line.sent
    device.write(Region.IO, 0, content)
    assert line.sent - before < 10_000
    assert (device.read(Region.IO, 0, 40_000) == content).all()


def test_long_transfers_are_reported():
    board = identified()
    device, _ = on_model(board)
    seen = []
    device._report = lambda *args: seen.append(args)
    device.load_commands(bytes(32), io_bytes=LONG_BYTES)
    assert {text for text, _, _ in seen} == {"Clearing the board's memory"}
    seen.clear()
    device.write(Region.IO, 0, np.ones(LONG_BYTES, np.uint8))
    assert seen[-1] == ("Writing io", LONG_BYTES, LONG_BYTES)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize("seed", range(20))
def test_parts_cover_the_data(seed):
    rng = random.Random(seed)
    blocks = [rng.choice([b"\0", b"\1"]) * ZERO_BLOCK_BYTES for _ in range(rng.randrange(6))]
    content = b"".join(blocks) + bytes(rng.randrange(ZERO_BLOCK_BYTES))
    end = 0
    for begin, stop, zero in _parts(np.frombuffer(content, np.uint8)):
        assert begin == end < stop
        assert not zero or not any(content[begin:stop])
        end = stop
    assert end == len(content)
