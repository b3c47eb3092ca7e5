"""A campaign of mutants: RTL in Verilator and golden model stop alike and write the same bytes.

    python -m tests.sim.attack --mutants 5000 --seed 1

After each mutant a program that fills every memory and all row state must give the right bytes on
the same machines. A disagreement is reduced to the fewest commands and the plainest fields that
still show it. The exit status is 1 if there was any.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import numpy as np

from hw import isa
from hw.accelerator import Accelerator
from hw.cells.technology import Technology
from hw.config import PRESETS, AcceleratorConfig
from hw.isa import NO_LIMIT, REGISTERS, Command, ErrorCode, Memory, Opcode, Region
from hw.registers import register_address
from sim.export import component_verilog
from sim.model import ModelError
from sim.verilator import BuiltModel, build_model
from sw.compiler.stream.access import pitch_of
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.order import finish
from sw.driver import CycleLimitError, Device, GoldenDevice, MachineError, VerilatorDevice
from sw.golden.activity import EXACT
from sw.golden.machine import GoldenMachine, MachineStop, UndefinedCommand
from tests.hw.programs import WRITABLE, Image, interleave, program_image, window
from tests.hw.random_registers import KEEPING, SELECTING
from tests.sim.mutants import Mutant, Order, random_mutant, registers_along, without_waits
from tests.sim.reduction import describe, reduce
from tests.sim.rtl import Pair, write_registers

__all__ = ["CONFIG", "Campaign", "Disagreement", "build", "machines", "run_mutant"]

CONFIG = window(PRESETS["tiny"])
"""The array of `tiny` with memories so small that many addresses lie at their ends."""
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w")  # short builds
MOST_CYCLES = 500_000
MUTANTS_A_MACHINE = 50
"""Then the next bus: another latency, with stalls or without."""
Stop = tuple[ErrorCode, int]
RANGES = {ErrorCode.DMA_WINDOW, ErrorCode.ONCHIP_RANGE}


class Disagreement(AssertionError):
    """RTL and golden model differ, or the RTL did what no program may make it do."""


def build(
    config: AcceleratorConfig = CONFIG, technology: Technology = Technology.SIMULATION
) -> BuiltModel:
    """The RTL, in which a word that is read while it is written comes spoilt."""
    accelerator = Accelerator(config, poison_collisions=True)
    verilog = component_verilog(accelerator, platform=technology)
    return build_model(verilog, cxx_flags=FLAGS)


@contextmanager
def machines(built: BuiltModel, seed: int, config: AcceleratorConfig = CONFIG) -> Iterator[Pair]:
    """A new pair, on a bus that `seed` chooses, in the state that `check_program` leaves."""
    rng = random.Random(seed)
    latency, stalls = rng.choice([1, 5, 20, 64]), rng.choice([None, seed])
    with (
        GoldenDevice(config) as golden,
        VerilatorDevice(config, built=built, memory_latency=latency, stall_seed=stalls) as rtl,
    ):
        pair = Pair(golden, rtl)
        check_program(pair, seed)
        yield pair


# --- one program ----------------------------------------------------------------------------------


def place(pair: Pair, image: Image, rng: random.Random) -> None:
    """Open the windows over memory that is random everywhere, and put the image into them."""
    for device in (pair.golden, pair.rtl):
        device.loaded = None
        device.open_windows({region: len(data) for region, data in image.items()})
    pair.golden.memory.data[:] = np.frombuffer(
        rng.randbytes(len(pair.golden.memory.data)), np.uint8
    )
    for region, data in image.items():
        pair.golden.write(region, 0, data)
    pair.rtl.memory.data[:] = pair.golden.memory.data


def run(device: Device, commands: int) -> Stop:
    """Error code and command; `Disagreement` for a machine that hangs or breaks the bus rules."""
    try:
        device.run(commands, max_cycles=MOST_CYCLES)
    except MachineError as error:
        return error.code, error.index
    except CycleLimitError as error:
        raise Disagreement(f"hangs: {error}") from None
    except ModelError as error:
        raise Disagreement(str(error)) from None
    return ErrorCode.NONE, 0


def check_guards(pair: Pair, before: np.ndarray) -> None:
    """No byte outside the writable windows has changed."""
    after = pair.rtl.memory.data.copy()
    for region in WRITABLE:
        base, size = pair.rtl.memory.bases[region], pair.rtl.memory.regions.sizes[region]
        after[base : base + size] = before[base : base + size]
    wrong = np.flatnonzero(after != before)
    if len(wrong):
        raise Disagreement(f"{len(wrong)} bytes outside the windows changed, first {wrong[0]:#x}")


def check_bytes(pair: Pair, what: str) -> None:
    wrong = np.flatnonzero(pair.golden.memory.data != pair.rtl.memory.data)
    if len(wrong):
        raise Disagreement(f"{what}: {len(wrong)} bytes differ, the first at {wrong[0]:#x}")


def check_registers(pair: Pair) -> None:
    golden, rtl = (d.read_registers(register_address(0), REGISTERS) for d in pair.devices)
    if golden != rtl:
        raise Disagreement(f"registers are {rtl} instead of {golden}")


def check_program(pair: Pair, seed: int) -> None:
    """Fill all of the machine from DRAM, and compare what it then computes and holds."""
    c, rng = pair.golden.config, random.Random(seed)
    emitter = Emitter(c)
    offset = 0
    for memory, words in (
        (Memory.ACTIVATION, c.activation_words),
        (Memory.WEIGHT, c.weight_words),
        (Memory.RESIDUAL, c.residual_words),
        (Memory.PARAM0, c.param_words),
        (Memory.PARAM1, c.param_words),
        (Memory.MASK, c.mask_words),
    ):
        fields = {"region": Region.CONSTANT, "memory": memory, "offset": offset, "runs": 1}
        emitter.emit(Opcode.LOAD, words=words, word_stride=1, **fields)
        offset += words * pitch_of(c, memory)
    tile = {"k_tiles": 1, "n_tiles": 1}
    emitter.emit(Opcode.GEMM, rows=c.accumulator_words, **tile)
    rows = {"rows": c.row_slots, "groups": 2}
    emitter.emit(Opcode.GEMM, rows=c.row_slots, row_max=1, limit=NO_LIMIT, **tile)
    emitter.emit(Opcode.SOFTMAX, first=1, limit=NO_LIMIT, score_shift=4, dst_memory=1, **rows)
    emitter.emit(Opcode.SCALE, dst_memory=1, dst_address=c.row_slots, **rows)
    emitter.emit(Opcode.VECTOR, statistics=1, statistics_first=1, write_residual=1,
                 res_stride=2, **rows)  # fmt: skip
    emitter.emit(Opcode.NORM, features=2 * c.lanes, dst_memory=1, dst_address=2 * c.row_slots,
                 res_stride=2, **rows)  # fmt: skip
    offset = 0
    for memory, words in (
        (Memory.ACTIVATION, c.activation_words),
        (Memory.WEIGHT, c.weight_words),
        (Memory.RESIDUAL, c.residual_words),
    ):
        fields = {"region": Region.IO, "memory": memory, "offset": offset, "runs": 1}
        emitter.emit(Opcode.STORE, words=words, word_stride=1, **fields)
        offset += words * pitch_of(c, memory)
    commands = emitter.stream()
    stream = finish(commands, interleave(commands, rng)).tobytes()
    place(pair, program_image(stream, rng), rng)
    for device in pair.devices:
        stop = run(device, len(stream) // isa.COMMAND_BYTES)
        if stop[0]:
            raise Disagreement(f"the next program stops: {device.name}, {stop}")
    check_bytes(pair, "the next program")


# --- one mutant -----------------------------------------------------------------------------------


def _alone(
    config: AcceleratorConfig, image: Image, registers: dict[int, int], word: bytes
) -> ErrorCode:
    """Why a command fails by itself, on these windows and registers."""
    machine = _golden(config, image, registers)
    try:
        machine.run(word + isa.encode(Command(Opcode.HALT)))
    except MachineStop as stop:
        return stop.code
    except UndefinedCommand:
        pass
    return ErrorCode.NONE


def _golden(config: AcceleratorConfig, image: Image, registers: dict[int, int]) -> GoldenMachine:
    machine = GoldenMachine(config)
    for region, data in image.items():
        machine.set_region(region, data.copy(), region in WRITABLE)
    for number, value in registers.items():
        machine.registers[number] = value
    return machine


def _accepts(config: AcceleratorConfig, mutant: Mutant) -> bool:
    """Whether the golden model runs all of it, and the emitter finds waits for it.

    That does not depend on data or order."""
    stream = dataclasses.replace(mutant, order=Order.BARRIERS).stream(config)
    try:
        _golden(config, mutant.image(stream), mutant.registers).run(stream)
        mutant.stream(config)
    except (MachineStop, UndefinedCommand, AssertionError):  # the emitter is stricter
        return False
    return True


def _agree(
    config: AcceleratorConfig, mutant: Mutant, stream: bytes, golden: Stop, rtl: Stop
) -> bool:
    """The same stop; or the other of two reasons of a transfer, or of two commands that fail."""
    if golden == rtl:
        return True
    size = isa.COMMAND_BYTES
    words = [stream[i : i + size] for i in range(0, len(stream), size)]
    if not (golden[0] and golden[1] <= rtl[1] < len(words)):
        return False
    between = words[golden[1] : rtl[1]]
    if any(word[0] in (Opcode.BARRIER, Opcode.HALT) for word in between):
        return False
    registers = list(registers_along(words, mutant.registers))[rtl[1]]
    found = _alone(config, mutant.image(stream), registers, without_waits(words[rtl[1]]))
    transfer = words[rtl[1]][0] in (Opcode.LOAD, Opcode.STORE)
    return found == rtl[0] or (transfer and {found, rtl[0]} == RANGES)


def check_activity(pair: Pair) -> None:
    """With `sleep`, what is counted is what the commands say."""
    if pair.golden.config.sleep:
        expected, found = (device.activity() for device in pair.devices)
        wrong = {n: (expected[n], found[n]) for n in EXACT if expected[n] != found[n]}
        if wrong:
            raise Disagreement(f"activity of golden and RTL: {wrong}")


def run_mutant(pair: Pair, mutant: Mutant) -> str:
    """Run it on both, then `check_program`: what came of it. Raises `Disagreement`."""
    config = pair.golden.config
    if mutant.order is Order.WAITS and (mutant.count or not _accepts(config, mutant)):
        mutant = dataclasses.replace(mutant, order=Order.BARRIERS)
    stream = mutant.stream(config)
    rng = random.Random(mutant.seed)
    image = mutant.image(stream)
    place(pair, image, rng)
    for device in pair.devices:  # what SELECT and KEEP wrote may be an undefined mutant's
        write_registers(device, {SELECTING: 0, KEEPING: 0, **mutant.registers})
    before = pair.rtl.memory.data.copy()
    count = len(stream) // isa.COMMAND_BYTES + mutant.count
    found = run(pair.rtl, count)
    check_guards(pair, before)
    try:
        expected = run(pair.golden, count)
    except UndefinedCommand:
        pair.golden.reset()
        result = "undefined"
    else:
        if not _agree(config, mutant, stream, expected, found):
            raise Disagreement(f"golden {expected}, RTL {found}")
        if expected[0] == ErrorCode.NONE:
            check_registers(pair)
            check_activity(pair)
            if mutant.order is not Order.GIVEN:
                check_bytes(pair, mutant.order.name)
        result = expected[0].name
    check_program(pair, mutant.seed)
    return result


# --- the campaign ---------------------------------------------------------------------------------


class Campaign:
    """Mutants `first .. first + count - 1` on one configuration.

    Attributes
    ----------
    results: how often each end of a mutant came. faults: text of each disagreement, reduced;
    `report` is called with it at once.
    """

    def __init__(
        self,
        built: BuiltModel,
        config: AcceleratorConfig = CONFIG,
        report: Callable[[str], None] = lambda text: None,
    ):
        self.built, self.config, self.report = built, config, report
        self.results: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, first: int, count: int, most_faults: int = 10) -> None:
        seeds = iter(range(first, first + count))
        while some := list(islice(seeds, MUTANTS_A_MACHINE)):
            with ExitStack() as stack:
                pair = None
                for seed in some:
                    pair = pair or stack.enter_context(machines(self.built, seed, self.config))
                    mutant = random_mutant(self.config, seed)
                    try:
                        self.results[run_mutant(pair, mutant)] += 1
                    except Disagreement as error:
                        self.results["disagreement"] += 1
                        self.faults.append(self._text(mutant, error))
                        self.report(self.faults[-1])
                        if len(self.faults) == most_faults:
                            return
                        pair = None  # it may be in any state

    def fails(self, mutant: Mutant) -> str:
        """The disagreement on new machines; empty if there is none."""
        try:
            with machines(self.built, mutant.seed, self.config) as pair:
                run_mutant(pair, mutant)
        except Disagreement as error:
            return str(error)
        return ""

    def _text(self, mutant: Mutant, error: Disagreement) -> str:
        text = f"mutant {mutant.seed} ({mutant.what}): {error}"
        if not self.fails(mutant):
            return f"{text}\n    only behind the mutants before it"
        least = reduce(mutant, lambda m: bool(self.fails(m)))
        return f"{text}\n    reduced: {self.fails(least)}\n{describe(least)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.attack", description=__doc__)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first mutant")
    parser.add_argument("--sleep", action="store_true", help="with the option `sleep`")
    parser.add_argument("--prune", action="store_true", help="with the option `prune`")
    parser.add_argument("--plain-rtl", action="store_true", help="what is synthesised")
    options = parser.parse_args(arguments)
    technology = Technology.PORTABLE if options.plain_rtl else Technology.SIMULATION
    config = dataclasses.replace(CONFIG, sleep=options.sleep, prune=options.prune)
    built = build(config, technology)
    campaign = Campaign(built, config, report=lambda text: print(text, flush=True))
    campaign.run(options.seed, options.mutants)
    results = ", ".join(f"{count} {name}" for name, count in campaign.results.most_common())
    print(f"seeds {options.seed}..{options.seed + options.mutants - 1}: {results}")
    return int(bool(campaign.faults))


if __name__ == "__main__":
    sys.exit(main())
