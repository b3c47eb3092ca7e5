"""The golden model: executes a command stream in integers, command by command, in stream order.

It defines the result of a program: the RTL must write the same bytes. It has no notion of time;
a program with correct waits gives the same bytes in any order that the waits allow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import (
    MASKED_SCORE,
    MATRIX_OPCODES,
    NO_LIMIT,
    REGISTER_BITS,
    REGISTERS,
    SELECTED,
    SQUARES_BITS,
    STAYS,
    SUM_BITS,
    TOTAL_BITS,
    Command,
    ErrorCode,
    Function,
    Memory,
    Opcode,
    Region,
    Unit,
)
from hw.numerics import Int, round_shift, saturate, scale_by_power, wrapped
from hw.softmax.golden import keep_step, row_step, weights
from hw.sparse.packing import tile_format
from hw.systolic.golden import gemm
from hw.vector.golden import (
    Affine,
    activate,
    affine,
    gated,
    middle,
    norm_row,
    reciprocal_row,
    rotated,
    selected,
    to_bytes,
    unpack_params,
)
from sw.golden.activity import activity_of
from sw.golden.compiled import ARRAYS, CompiledMachine, compiled_machine
from sw.golden.legality import check_legal

__all__ = ["GoldenMachine", "MachineStop", "UndefinedCommand"]


PROGRESS_COMMANDS = 256
"""Commands between two reports of progress."""

ROW_STATES = ("ROW_MAX", "softmax state", "octaves", "statistics", "selection")
"""What commands leave for later ones on the same rows. octaves: OCTAVE, LARGEST and SHIFT, of the
softmax state or of KEEP."""


class MachineStop(Exception):
    """The machine stopped with an error, as the RTL would: code and index of the command."""

    def __init__(self, code: ErrorCode, index: int, text: str):
        super().__init__(f"command {index}: {code.name}: {text}")
        self.code = code
        self.index = index


class UndefinedCommand(Exception):
    """A command whose result the command stream does not define, so no machine may be given it."""


@dataclass
class _Dram:
    data: NDArray[np.uint8]
    writable: bool


class GoldenMachine:
    """Memories and row state of one accelerator, and the execution of commands on them.

    Parameters
    ----------
    config: sizes of the machine. compiled: let C++ execute what it can (`sw/golden/compiled.py`),
    where there is a compiler; the methods here define what it must do, and do the rest.

    Memories hold words as rows: activation uint8 [words, R], weight int8 [words, max(R, C)],
    residual int16 [words, V], accumulator int32 [words, C], parameters as records, mask bool
    [words, C]. They are cleared once, not at each program, as in hardware nothing may depend
    on it.

    Set `activity` to a `Counter` and it gathers what the commands make the machine do, by the names
    of `sw.golden.activity`; commands are then executed one by one, which takes longer.
    """

    def __init__(self, config: AcceleratorConfig, *, compiled: bool = True):
        self.config = config
        self.activity: Counter[str] | None = None
        self._compiled = compiled_machine(config) if compiled else None
        c = config
        self.activation = np.zeros((c.activation_words, c.rows), np.uint8)
        self.weight = np.zeros((c.weight_words, c.weight_bytes), np.int8)
        self.residual = np.zeros((c.residual_words, c.lanes), np.int16)
        self.accumulator = np.zeros((c.accumulator_words, c.columns), np.int32)
        self.params = {
            Memory.PARAM0: np.zeros((c.param_words, 8 * c.lanes), np.uint8),
            Memory.PARAM1: np.zeros((c.param_words, 8 * c.lanes), np.uint8),
        }
        self.mask = np.zeros((c.mask_words, c.columns), np.bool_)
        self.row_max = np.full(c.row_slots, MASKED_SCORE, np.int32)
        self.octave = np.zeros(c.row_slots, np.int64)
        self.largest = np.zeros(c.row_slots, np.int64)
        self.total = np.zeros(c.row_slots, np.int64)
        self.shift = np.zeros(c.row_slots, np.int64)
        self.sum = np.zeros(c.row_slots, np.int64)
        self.squares = np.zeros(c.row_slots, np.int64)
        self.selection = np.zeros((SELECTED, SELECTED, 2), np.int64)  # row, place: value, index
        self.registers = [0] * REGISTERS
        # Of each register that a SELECT or KEEP wrote and no BARRIER waited for: how many commands
        # the vector unit then had; else 0. The first: how many it has so far.
        self.selected = [0] * REGISTERS
        # Rows whose state the program has written; a command without a program may read any.
        self.written = {name: np.ones(c.row_slots, np.bool_) for name in ROW_STATES}
        self.dram: dict[Region, _Dram] = {}
        self.index = 0
        self._execute: dict[Opcode, Callable[[Command], None]] = {
            Opcode.LOAD: self._load,
            Opcode.STORE: self._store,
            **dict.fromkeys(MATRIX_OPCODES, self._gemm),
            Opcode.VECTOR: self._vector,
            Opcode.NORM: self._norm,
            Opcode.SCALE: self._scale,
            Opcode.SOFTMAX: self._softmax,
            Opcode.SELECT: self._select,
            Opcode.KEEP: self._keep,
            Opcode.ADD: self._add,
        }

    # --- programs -----------------------------------------------------------------------------

    def set_region(self, region: Region, data: NDArray[np.uint8], writable: bool) -> None:
        """Open a DRAM window on `data`, which stores write in place."""
        if not data.flags.c_contiguous:
            raise ValueError(f"the bytes of region {region.name} must be contiguous")
        self.dram[region] = _Dram(data, writable)

    def run(
        self, commands: bytes | None = None, progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Execute the program in region PROGRAM (or `commands`) up to HALT.

        Returns the number of commands executed, without those that were dropped. Raises
        `MachineStop` where the RTL stops.
        """
        if commands is None:
            commands = self.dram[Region.PROGRAM].data.tobytes()
        # The products are small: threads would spend their time waiting for each other.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._run(commands, progress)

    def _run(self, commands: bytes, progress: Callable[[int, int], None] | None) -> int:
        total = len(commands) // isa.COMMAND_BYTES
        index = executed = 0
        for written in self.written.values():
            written.fill(False)
        self.selected[:] = [0] * REGISTERS
        if self._compiled:
            self.bind_compiled(self._compiled)
        while index < total:
            start, count, halted = index, 0, False
            if self.activity is not None:
                self.index = index
                self._count(commands[isa.COMMAND_BYTES * index : isa.COMMAND_BYTES * (index + 1)])
            if self._compiled:
                stop = start + (PROGRESS_COMMANDS if self.activity is None else 1)
                stop = min(stop, total)
                index, count, halted = self._compiled.run(
                    self.registers, self.selected, commands, start, stop
                )
            if index == start:  # a command that is not among the compiled ones
                self.index = index
                count, halted = self._step(
                    commands[isa.COMMAND_BYTES * index : isa.COMMAND_BYTES * (index + 1)]
                )
                index += 1
            executed += count
            if halted:
                return executed
            if progress and start // PROGRESS_COMMANDS != index // PROGRESS_COMMANDS:
                progress(index, total)
        self.index = total
        raise self._stop(ErrorCode.PROGRAM_END, "the program has no HALT")

    def count(self, commands: bytes) -> Counter[str]:
        """What a program makes the machine do, by the names of `sw.golden.activity`, without
        executing more of it than ADD. The registers are those that are held.

        Raises `UndefinedCommand` where it depends on what SELECT or KEEP finds, and `MachineStop`.
        """
        self.activity, found = Counter(), set()
        for index in range(len(commands) // isa.COMMAND_BYTES):
            word = commands[isa.COMMAND_BYTES * index : isa.COMMAND_BYTES * (index + 1)]
            self.index, command = index, self._decode(word)
            names = ("register", "predicate")
            if command.opcode in (Opcode.SELECT, Opcode.KEEP):
                found.add(command["register"])
                names = ("predicate",)
            if {command.values.get(name, 0) for name in names} & (found - {0}):
                raise UndefinedCommand(f"command {index} depends on what one before it finds")
            self._count(word)
            if self.drops(command):
                continue
            if command.opcode == Opcode.HALT:
                break
            if command.opcode == Opcode.ADD:
                self._add(command)
        return self.activity

    def bind_compiled(self, compiled: CompiledMachine) -> None:
        """Let the compiled machine work on this one's memories, row state and windows."""
        written = self.written
        arrays = {name: getattr(self, name) for name in ARRAYS if hasattr(self, name)} | {
            "param0": self.params[Memory.PARAM0],
            "param1": self.params[Memory.PARAM1],
            "row_max_written": written["ROW_MAX"],
            "softmax_written": written["softmax state"],
            "octaves_written": written["octaves"],
            "statistics_written": written["statistics"],
            "selection_written": written["selection"],
        }
        windows = {region: (dram.data, dram.writable) for region, dram in self.dram.items()}
        compiled.bind(arrays, windows)

    def _step(self, word: bytes) -> tuple[int, bool]:
        """Execute a command; whether it counts, and whether it ends the program."""
        command = self._decode(word)
        self._check_registers(command)
        if self.drops(command):
            return 0, False
        self.selected[0] += command.unit == Unit.VECTOR
        if command.opcode == Opcode.HALT:
            return 1, True
        self.execute(self.moved(command))
        return 1, False

    def _count(self, word: bytes) -> None:
        """Add the activity of the command that comes next."""
        command = self._decode(word)
        if self.activity is not None and not self.drops(command):
            self.activity.update(activity_of(self.config, self.moved(command)))

    def _decode(self, word: bytes) -> Command:
        try:
            command = isa.decode(word)
            check_legal(command, self.config)
        except isa.IsaError as error:
            raise self._stop(ErrorCode.ILLEGAL_COMMAND, str(error)) from None
        return command

    def _check_registers(self, command: Command) -> None:
        """A register that SELECT or KEEP writes is used behind a BARRIER only."""
        if command.opcode == Opcode.BARRIER:
            self._settle(command)
        register, predicate = (command.values.get(n, 0) for n in ("register", "predicate"))
        writes = command.opcode in (Opcode.SELECT, Opcode.KEEP)
        if any(self.selected[n] for n in {predicate, 0 if writes else register} - {0}):
            raise UndefinedCommand(
                f"command {self.index}: {command.opcode.name} uses a register that a SELECT or "
                f"KEEP before it writes, without a BARRIER between them"
            )

    def _settle(self, barrier: Command) -> None:
        """Registers that hold what was written once a BARRIER is passed."""
        done, waits = self.selected[0], [wait for wait in barrier.waits if wait is not None]
        if self.config.prune and waits:
            done = max((done - w.distance for w in waits if w.unit == Unit.VECTOR), default=0)
        self.selected[1:] = [count if count > done else 0 for count in self.selected[1:]]

    def drops(self, command: Command) -> bool:
        """Whether a predicate drops a command."""
        return command.opcode != Opcode.KEEP and not self._something_left(command)

    def _something_left(self, command: Command) -> bool:
        predicate = command.values.get("predicate", 0)
        return predicate == 0 or isa.last_limit(command.values) + self.registers[predicate] > 0

    def moved(self, command: Command) -> Command:
        """A command with its register's value added to its offset or limit, and without the
        tiles that it leaves out. The limit of KEEP then is whether it is to look at anything."""
        v = command.values
        if command.opcode == Opcode.KEEP:
            return replace(command, values={**v, "limit": int(self._something_left(command))})
        if v.get("trim", 0):
            predicate = self.registers[v["predicate"]]
            v = {**v, **isa.trimmed(v, predicate, self.config.rows, self.config.columns)}
            command = replace(command, values=v)
        if not v.get("register", 0) or command.opcode in (Opcode.SELECT, Opcode.ADD):
            return command
        value = self.registers[v["register"]]
        if command.opcode in (Opcode.LOAD, Opcode.STORE):
            _, _, pitch = self._memory(v["memory"])
            return replace(command, values={**v, "offset": v["offset"] + value * pitch})
        return replace(command, values={**v, "limit": min(v["limit"] + value, NO_LIMIT)})

    def execute(self, command: Command) -> None:
        """Execute one command to completion. Raises `MachineStop` and `UndefinedCommand`."""
        if isa.overlaps_itself(command.opcode, command.values):
            raise UndefinedCommand(
                f"command {self.index}: {command.opcode.name} writes residual words that it reads "
                f"for others: {command.values}"
            )
        handler = self._execute.get(command.opcode)
        if handler is not None:
            handler(command)

    def _stop(self, code: ErrorCode, text: str) -> MachineStop:
        return MachineStop(code, self.index, text)

    def _check(self, high: int, limit: int, memory: str) -> None:
        """`high` is the largest word address of an access."""
        if high >= limit:
            raise self._stop(ErrorCode.ONCHIP_RANGE, f"{memory} word {high} of {limit}")

    def _check_slots(self, command: Command) -> None:
        self._check(command["slot"] + command["rows"] - 1, self.config.row_slots, "row state")

    def _slots(self, command: Command, *, reads: str = "", writes: str = "") -> slice:
        """The row state of a command, which must have been written if it is read."""
        rows = slice(command["slot"], command["slot"] + command["rows"])
        if reads and not self.written[reads][rows].all():
            raise UndefinedCommand(
                f"command {self.index}: {command.opcode.name} reads the {reads} of rows "
                f"{rows.start}..{rows.stop - 1} before the program has written all of it"
            )
        if writes:
            self.written[writes][rows] = True
        return rows

    def _check_vector(self, command: Command) -> None:
        """What a vector command is refused for before it has done anything."""
        if command.opcode == Opcode.SELECT:
            self._check(command["slot"] + command["rows"] - 1, 2 * SELECTED, "selection")
        elif command.opcode != Opcode.VECTOR or command["statistics"]:
            self._check_slots(command)

    # --- DMA ----------------------------------------------------------------------------------

    def _memory(self, memory: int) -> tuple[NDArray, int, int]:
        """Words as uint8 [words, bytes], bytes used of a word, pitch in DRAM."""
        c = self.config
        if memory == Memory.ACTIVATION:
            return self.activation, c.rows, c.activation_pitch
        if memory == Memory.WEIGHT:
            return self.weight.view(np.uint8), c.weight_bytes, c.weight_pitch
        if memory == Memory.RESIDUAL:
            return self.residual.view(np.uint8), c.residual_pitch, c.residual_pitch
        if memory == Memory.MASK:
            return self.mask.view(np.uint8), c.columns, c.mask_pitch
        return self.params[Memory(memory)], c.param_pitch, c.param_pitch

    def _transfer(self, command: Command, store: bool) -> None:
        data, used, pitch = self._memory(command["memory"])
        words, runs = command["words"], command["runs"]
        dram = self.dram.get(Region(command["region"]))
        offset, stride = command["offset"], command["dram_stride"]
        last = offset + (runs - 1) * stride + words * pitch
        if dram is None or last > len(dram.data):
            raise self._stop(
                ErrorCode.DMA_WINDOW, f"bytes {offset}..{last} of region {command['region']}"
            )
        if store and not dram.writable:
            raise self._stop(ErrorCode.DMA_WINDOW, f"region {command['region']} is read-only")
        addresses = (
            command["address"]
            + np.arange(runs)[:, None] * command["run_stride"]
            + np.arange(words)[None, :] * command["word_stride"]
        )
        self._check(int(addresses.max()), len(data), Memory(command["memory"]).name)
        view = np.lib.stride_tricks.as_strided(
            dram.data[offset:], (runs, words, pitch), (stride, pitch, 1), writeable=store
        )
        if store:
            # Runs that overlap are written in order; only then does the order matter.
            for r in range(runs) if stride < words * pitch else (slice(None),):
                view[r, ..., :used] = data[addresses[r]]
                view[r, ..., used:] = 0
        elif command["memory"] == Memory.MASK:
            self.mask[addresses] = view[..., :used] != 0
        else:
            data[addresses] = view[..., :used]

    def _load(self, command: Command) -> None:
        self._transfer(command, store=False)

    def _store(self, command: Command) -> None:
        self._transfer(command, store=True)

    # --- matrix unit --------------------------------------------------------------------------

    def _gemm(self, command: Command) -> None:
        v, c = command.values, self.config
        rows, k, n = v["rows"], v["k_tiles"], v["n_tiles"]
        form = tile_format(c, command.opcode, v)
        self._check(
            v["a_address"] + (k * form.panels - 1) * v["a_stride"] + (1 + v["wide"]) * rows - 1,
            c.activation_words,
            "activation",
        )
        heads = form.total_words(k) - k * form.words
        last = (k - 1) * v["w_k_stride"] + (n - 1) * v["w_n_stride"] + heads + form.words - 1
        self._check(v["w_address"] + last, c.weight_words, "weight")
        self._check(
            v["acc_address"] + (n - 1) * v["acc_stride"] + rows - 1,
            c.accumulator_words,
            "accumulator",
        )
        if v["row_max"] or (v["accumulate"] and v["rescale"]):
            self._check_slots(command)
        if v["row_max"] and v["mask"]:
            self._check(v["mask_address"] + n - 1, c.mask_words, "mask")
        if v["accumulate"] and v["rescale"]:
            self._slots(command, reads="octaves")
        if v["row_max"]:
            self._slots(command, writes="ROW_MAX")
        gemm(
            c,
            v,
            self.activation,
            self.weight,
            self.accumulator,
            self.row_max,
            self.shift,
            self.mask,
            command.opcode,
        )

    # --- vector unit --------------------------------------------------------------------------

    def _acc_read(self, v: dict[str, int]) -> Int:
        """Accumulator values [rows, groups * V]."""
        c = self.config
        panels = -(-v["groups"] // c.groups_per_column_panel)
        self._check(
            v["acc_address"] + (panels - 1) * v["acc_stride"] + v["rows"] - 1,
            c.accumulator_words,
            "accumulator",
        )
        address = (
            v["acc_address"]
            + np.arange(panels)[None, :] * v["acc_stride"]
            + np.arange(v["rows"])[:, None]
        )
        values = self.accumulator[address].reshape(v["rows"], panels * c.columns)
        return values[:, : v["groups"] * c.lanes].astype(np.int64)

    def _residual_addresses(self, v: dict[str, int], base: int) -> NDArray[np.int64]:
        address = (
            base + np.arange(v["rows"])[:, None] * v["res_stride"] + np.arange(v["groups"])[None, :]
        )
        self._check(int(address.max()), self.config.residual_words, "residual")
        return address

    def _residual_read(self, v: dict[str, int]) -> Int:
        """Residual operand [rows, groups * V]."""
        address = self._residual_addresses(v, v["res_address"])
        return self.residual[address].reshape(v["rows"], -1).astype(np.int64)

    def _residual_write(self, v: dict[str, int], values: Int) -> None:
        address = self._residual_addresses(v, v["res_dst_address"])
        self.residual[address] = values.reshape(v["rows"], v["groups"], -1)

    def _param(self, memory: Memory, address: int, groups: int, same: int = 0) -> Affine:
        """Records of `groups` groups; same: all those of the first one."""
        count = 1 if same else groups
        self._check(address + count - 1, self.config.param_words, memory.name)
        words = self.params[memory][address : address + count]
        return unpack_params(np.repeat(words, groups, axis=0) if same else words)

    def _write(self, v: dict[str, int], values: Int, groups: int = 0) -> None:
        """Result [rows, groups * V], saturated or, wide, in two bytes, to the destination words."""
        if not v["dst_memory"]:
            return
        if v["wide"]:
            self._write_bytes(v, np.stack(to_bytes(values), axis=1), groups)
        else:
            self._write_bytes(v, saturate(values, 8), groups)

    def _write_bytes(self, v: dict[str, int], values: Int, groups: int = 0) -> None:
        """Low bytes of values [rows, groups * V], or [rows, 2, groups * V] of two words a row, to
        the destination words."""
        c = self.config
        if v["dst_memory"] == Memory.NONE:
            return
        if v["dst_memory"] == Memory.ACTIVATION:
            memory, name = self.activation, "activation"
        else:
            memory, name = self.weight.view(np.uint8), "weight"
        word_bytes = c.columns if v["dst_by_column"] else c.rows
        width = (groups or v["groups"]) * c.lanes
        panels = -(-width // word_bytes)
        data = values.astype(np.uint8).reshape(v["rows"], -1, width)
        words = data.shape[1]  # of a row, in a panel
        self._check(
            v["dst_address"] + (panels - 1) * v["dst_stride"] + words * v["rows"] - 1,
            len(memory),
            name,
        )
        # Panels that overlap are written row by row; only then does the order matter.
        overlap = panels > 1 and v["dst_stride"] < words * v["rows"]
        step = 1 if overlap else v["rows"]
        for row in range(0, v["rows"], step):
            for panel in range(panels):
                start = v["dst_address"] + panel * v["dst_stride"] + words * row
                part = data[row : row + step, :, panel * word_bytes : (panel + 1) * word_bytes]
                part = part.reshape(words * step, -1)
                memory[start : start + words * step, : part.shape[1]] = part

    def _vector(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        reads = v["from_residual"] or v["add_residual"] or v["rotate"]
        residual = self._residual_read(v) if reads else None
        x = residual if v["from_residual"] else self._acc_read(v)
        assert x is not None
        h = middle(x, self._param(Memory.PARAM0, v["param0"], v["groups"], v["same_param0"]))
        function = Function(v["function"])
        if v["gated"]:
            groups = v["groups"] // 2
            pairs = h.reshape(len(h), groups, 2, -1)
            gate, up = (pairs[:, :, i].reshape(len(h), -1) for i in range(2))
            p = self._param(Memory.PARAM1, v["param1"], groups, v["same_param1"])
            return self._write(v, gated(activate(gate, function), up, p), groups)
        h = activate(h, function)
        if v["rotate"]:
            assert residual is not None
            p = self._param(Memory.PARAM1, v["param1"], v["groups"], v["same_param1"])
            return self._write(v, rotated(h, residual, p))
        if v["add_residual"]:
            assert residual is not None
            h = saturate(saturate(h, 16) + round_shift(residual, v["res_shift"]), 16)
        h16 = saturate(h, 16)
        if v["statistics"]:
            first = v["statistics_first"]
            rows = self._slots(command, reads="" if first else "statistics", writes="statistics")
            total = h16.sum(1) + (0 if first else self.sum[rows])
            squares = (h16 * h16).sum(1) + (0 if first else self.squares[rows])
            self.sum[rows] = wrapped(total, TOTAL_BITS)
            self.squares[rows] = squares & ((1 << SQUARES_BITS) - 1)
        if v["dst_memory"]:
            if v["two_stage"]:
                p = self._param(Memory.PARAM1, v["param1"], v["groups"], v["same_param1"])
                h = affine(h, p)
            self._write_bytes(v, h) if v["wrap"] else self._write(v, h)
        if v["write_residual"]:
            self._residual_write(v, h16)

    def _norm(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        rows = self._slots(command, reads="statistics")
        total = np.zeros_like(self.sum[rows]) if v["rms"] else self.sum[rows]
        p = norm_row(total, self.squares[rows], v["features"], v["epsilon"])
        z = middle(self._residual_read(v), _per_row(p))
        if v["dst_memory"]:
            second = self._param(Memory.PARAM1, v["param1"], v["groups"], v["same_param1"])
            self._write(v, affine(z, second))
        if v["write_residual"]:
            gain = self._param(Memory.PARAM0, v["param0"], v["groups"])
            self._residual_write(v, saturate(affine(z, gain), 16))

    def _scale(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        rows = self._slots(command, reads="softmax state")
        h = middle(self._acc_read(v), _per_row(reciprocal_row(self.total[rows])))
        second = self._param(Memory.PARAM1, v["param1"], v["groups"], v["same_param1"])
        self._write(v, affine(h, second))

    def _softmax(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        self._slots(command, reads="ROW_MAX")
        rows = self._slots(
            command, reads="" if v["first"] else "softmax state", writes="softmax state"
        )
        self._slots(command, writes="octaves")
        new, largest, shift = row_step(
            self.row_max[rows].astype(np.int64),
            self.octave[rows],
            self.largest[rows],
            bool(v["first"]),
            v["score_shift"],
            v["drop"],
        )
        scores = self._acc_read(v)
        keys = np.arange(scores.shape[1])[None, :]
        row = np.arange(v["rows"])[:, None]
        row = row % v["period"] if v["period"] else row
        limit = v["limit"] + (row if v["causal"] else 0)
        valid = (keys < limit) & (scores != MASKED_SCORE)
        p, fine = weights(scores, new[:, None], v["score_shift"], valid)
        before = 0 if v["first"] else scale_by_power(self.total[rows], shift)
        self.total[rows] = (before + fine.sum(1)) & ((1 << SUM_BITS) - 1)
        self.octave[rows] = new
        self.largest[rows] = largest
        self.shift[rows] = shift
        self._write_bytes(v, p)

    # --- selection and registers --------------------------------------------------------------

    def _select(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        places = np.arange(v["slot"], v["slot"] + v["rows"]) % SELECTED
        if not (v["first"] or self.written["selection"][places].all()):
            raise UndefinedCommand(
                f"command {self.index}: SELECT reads the selection of rows before the program has "
                "written all of it"
            )
        self.written["selection"][places] = True
        rows = slice(v["slot"], v["slot"] + v["rows"])
        if v["write_residual"]:
            self._slots(command, reads="softmax state")
        scores = round_shift(self._acc_read(v), v["score_shift"])[:, : max(v["limit"], 0)]
        before = self.selection[places]
        if v["first"]:
            before = np.full_like(before, MASKED_SCORE)
            before[..., 1] = (1 << REGISTER_BITS) - 1
        best = self.selection[places] = selected(before, scores, v["base"])
        if v["write_residual"]:
            self._write_selection(v, best, rows)
        if v["register"]:
            self.registers[v["register"]] = int(best[-1, 0, 1])
            self.selected[v["register"]] = self.selected[0]

    def _write_selection(self, v: dict[str, int], best: Int, rows: slice) -> None:
        """Values and indices, octave and sum of each row, as INT16 halves, low ones first."""
        lanes = self.config.lanes
        state = np.stack([self.octave[rows], self.total[rows] & 0xFFFFFFFF, self.total[rows] >> 32])
        numbers = np.concatenate([best.reshape(v["rows"], -1), state.T], axis=1)
        halves = np.stack([numbers, numbers >> 16], axis=-1).reshape(v["rows"], -1)
        halves = np.pad(halves, ((0, 0), (0, -halves.shape[1] % max(lanes, 8))))
        words = halves.shape[1] // lanes
        address = self._residual_addresses({**v, "groups": words}, v["res_address"])
        self.residual[address] = wrapped(halves, 16).reshape(v["rows"], words, lanes)

    def _keep(self, command: Command) -> None:
        v = command.values
        self._check_vector(command)
        if v["limit"]:
            self._slots(command, reads="ROW_MAX")
        rows = self._slots(command, reads="" if v["first"] else "octaves", writes="octaves")
        self.written["softmax state"][rows] = False  # its sum belongs to another octave
        top = self.row_max[rows].astype(np.int64)
        stays, *state = keep_step(
            top if v["limit"] else np.full_like(top, MASKED_SCORE),
            self.octave[rows],
            self.largest[rows],
            bool(v["first"]),
            v["score_shift"],
            v["octaves"],
        )
        self.octave[rows], self.largest[rows], self.shift[rows] = state
        if v["register"]:
            self.registers[v["register"]] = STAYS if stays.any() else 0
            self.selected[v["register"]] = self.selected[0]

    def _add(self, command: Command) -> None:
        register = command["register"]
        total = self.registers[register] + command["value"]
        self.registers[register] = total & ((1 << REGISTER_BITS) - 1)


def _per_row(p: Affine) -> Affine:
    return Affine(p.mul[:, None], p.offset[:, None], p.shift[:, None])
