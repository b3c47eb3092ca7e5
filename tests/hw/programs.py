"""Programs for tests of the whole machine: commands with automatic waits, and random ones.

A random program keeps only to what the command stream demands of a program (addresses inside
their memories, row state written before it is read); everything else is left to chance, with
addresses that overlap often.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

import numpy as np

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import NO_LIMIT, SELECTED, Command, Function, Memory, Opcode, Region, Unit
from hw.sparse.packing import tile_format
from hw.vector.golden import Affine, pack_params
from sw.compiler.stream.access import pitch_of, selection_words
from sw.compiler.stream.emit import UNITS, Emitter, Stream
from sw.compiler.stream.order import finish
from tests.hw.random_registers import KEEPING, SELECTING, RandomRegisters

__all__ = [
    "REGION_BYTES",
    "WRITABLE",
    "Image",
    "RandomProgram",
    "assemble",
    "interleave",
    "program_image",
    "window",
]

WRITABLE = (Region.WORKSPACE, Region.IO)

REGION_BYTES = {
    Region.PROGRAM: 0x2000,
    Region.CONSTANT: 0x4000,
    Region.WORKSPACE: 0x2000,
    Region.IO: 0x4000,
}

Image = dict[Region, np.ndarray]
"""Contents of the four regions."""


def window(config: AcceleratorConfig) -> AcceleratorConfig:
    """The first words of every memory, as many as a random program uses."""
    return dataclasses.replace(
        config,
        name="window",
        activation_words=128,
        weight_words=16 + 12 * (max(config.rows, config.columns) + -(-config.rows // 4)),
        residual_words=128,
        accumulator_words=96,
        param_words=24,
        mask_words=8,
        row_slots=min(config.row_slots, 32),
    )


def assemble(commands: list[Command]) -> bytes:
    return b"".join(isa.encode(command) for command in commands)


def program_image(program: bytes, rng: random.Random) -> Image:
    """Regions around a program; everything else in memory is random."""
    image = {
        region: np.frombuffer(rng.randbytes(size), np.uint8).copy()
        for region, size in REGION_BYTES.items()
    }
    image[Region.PROGRAM][: len(program)] = np.frombuffer(program, np.uint8)
    return image


def interleave(stream: Stream, rng: random.Random) -> np.ndarray:
    """The numbers of all commands, in any order that waits and registers allow."""
    heads = dict.fromkeys(Unit, 0)
    order: list[int] = []
    favourite = UNITS[0]
    while len(order) < len(stream.commands):
        ready = []
        for unit in Unit:
            if heads[unit] < len(stream.queues[unit]):
                number = int(stream.queues[unit][heads[unit]])
                before = [*stream.order.get(number, ()), *stream.waits[number].tolist()]
                if all(n <= heads[Unit(u)] for u, n in before):
                    ready.append(unit)
        if rng.random() < 0.2 or favourite not in ready:
            favourite = rng.choice(ready)
        order.append(int(stream.queues[favourite][heads[favourite]]))
        heads[favourite] += 1
    return np.array(order, np.int64)


@dataclass
class _Panel:
    """Where a matrix lies: panels of words, `stride` words apart."""

    address: int
    stride: int


class RandomProgram:
    """Commands at random; `commands` is a stream that ends with HALT, and `registers` are what the
    driver writes before it.

    Parameters
    ----------
    config: the machine; only the `window` of it is used, so that commands often meet in the same
    words. rng: source of chance. steps: groups of commands.
    """

    def __init__(self, config: AcceleratorConfig, rng: random.Random, steps: int):
        self.rng = rng
        self.config = config = window(config)
        self.emitter = Emitter(config)
        self._registers = RandomRegisters(config, rng)
        self.registers = self._registers.initial
        self.constants: list[tuple[int, bytes]] = []  # what CONSTANT must hold, by offset
        self._load_params()
        makers = [
            self._load,
            self._load,
            self._gemm,
            self._gemm,
            self._vector,
            self._vector,
            self._norm,
            self._attention,
            self._store,
            *([self._add] if config.decoder else []),
        ]
        if config.decoder:
            makers += [self._gated, self._rotate, self._select, self._halt]
        if config.prune:
            makers += [self._prune, self._prune]
        for _ in range(steps):
            rng.choice(makers)()
        self._dump()
        stream = self.emitter.stream()
        code = finish(stream, interleave(stream, rng)).tobytes()
        size = isa.COMMAND_BYTES
        self.commands = [isa.decode(code[i : i + size]) for i in range(0, len(code), size)]

    def image(self) -> Image:
        image = program_image(assemble(self.commands), self.rng)
        for offset, data in self.constants:
            image[Region.CONSTANT][offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return image

    def _emit(self, opcode: Opcode, executed: int | None = None, **fields: int) -> None:
        """A command with registers by chance; executed: see `RandomRegisters.apply`."""
        found = self._registers.apply(opcode, fields, executed)
        if found is not None:
            self.emitter.emit(opcode, reach=self._registers.reach(found), **found)

    def _add(self) -> None:
        self.emitter.emit(Opcode.ADD, **self._registers.addition())

    def _halt(self) -> None:
        """One that is dropped."""
        self._emit(Opcode.HALT, executed=0)

    # --- places -------------------------------------------------------------------------------

    def _panels(self, words: int, rows: int, panels: int, used: int | None = None) -> _Panel:
        """A place for `panels` of `rows` words in a memory of `words`, in its first part often."""
        stride = self.rng.choice([rows, rows, 1, 0, rows + self.rng.randrange(4)])
        if used is not None:
            stride = used
        while stride and (panels - 1) * stride + rows > words:
            stride -= 1
        room = words - (panels - 1) * stride - rows
        return _Panel(
            self.rng.choice([0, self.rng.randint(0, min(room, 24)), self.rng.randint(0, room)]),
            stride,
        )

    def _rows(self) -> int:
        return self.rng.choice([1, 2, 3, 5, 8, self.rng.randint(1, 14)])

    def _slot(self, rows: int) -> int:
        return self.rng.randint(0, self.config.row_slots - rows)

    def _destination(self, rows: int, groups: int) -> dict[str, int]:
        c = self.config
        memory = self.rng.choice([Memory.NONE, Memory.ACTIVATION, Memory.ACTIVATION, Memory.WEIGHT])
        by_column = self.rng.randrange(2)
        if memory == Memory.ACTIVATION and c.columns > c.rows:
            by_column = 0
        width = (c.columns if by_column else c.rows) // c.lanes
        words = c.activation_words if memory == Memory.ACTIVATION else c.weight_words
        place = self._panels(words, rows, -(-groups // width))
        return {
            "dst_memory": memory,
            "dst_by_column": by_column,
            "dst_address": place.address,
            "dst_stride": place.stride,
        }

    def _result(self, rows: int, groups: int) -> dict[str, int]:
        """A destination, some of them of wide results where the machine has these."""
        wide = self.rng.randrange(2) if self.config.decoder else 0
        return self._destination(rows << wide, groups) | {"wide": wide}

    def _same(self, *names: str) -> dict[str, int]:
        """Choices that only a machine with `decoder` has."""
        return {name: self.rng.randrange(2) if self.config.decoder else 0 for name in names}

    def _accumulator(self, rows: int, panels: int) -> dict[str, int]:
        place = self._panels(self.config.accumulator_words, rows, panels, rows)
        return {"acc_address": place.address, "acc_stride": place.stride}

    def _param(self, groups: int) -> int:
        return self.rng.randint(0, self.config.param_words - groups)

    # --- commands -----------------------------------------------------------------------------

    def _load_params(self) -> None:
        """Fill both parameter memories with records that keep results within range."""
        c, rng = self.config, self.rng
        records = c.param_words * c.lanes
        offset = 0
        for memory in (Memory.PARAM0, Memory.PARAM1):
            shift = np.array([rng.randint(6, 20) for _ in range(records)])
            mul = np.array([rng.randint(-(1 << 15), (1 << 15) - 1) for _ in range(records)])
            add = np.array([rng.randint(-(1 << 22), 1 << 22) for _ in range(records)])
            data = pack_params(Affine(mul, add, shift))
            self.constants.append((offset, data))
            self.emitter.emit(
                Opcode.LOAD,
                region=Region.CONSTANT,
                queue=rng.randrange(2),
                memory=memory,
                offset=offset,
                words=c.param_words,
                runs=1,
                word_stride=1,
            )
            offset += len(data)
        self.free_constants = offset

    def _transfer(self, memory: Memory, words_of_memory: int, region: Region, low: int = 0):
        c, rng = self.config, self.rng
        words, runs = rng.randint(1, 12), rng.choice([1, 1, 2, 3, 5])
        word_stride = rng.choice([1, 1, 1, 0, 2, runs])
        run_stride = rng.choice([words, 1, 0, words * word_stride])
        span = (words - 1) * word_stride + (runs - 1) * run_stride
        if span >= words_of_memory:
            return self._transfer(memory, words_of_memory, region, low)
        pitch = pitch_of(c, memory)
        step = rng.choice([words * pitch, words * pitch, 0, c.bus_bytes * rng.randrange(12)])
        size = words * pitch + (runs - 1) * step
        room = (REGION_BYTES[region] - low - size) // c.bus_bytes
        return {
            "region": region,
            "memory": memory,
            "words": words,
            "runs": runs,
            "offset": low + rng.randint(0, room) * c.bus_bytes,
            "dram_stride": step,
            "address": rng.randint(0, words_of_memory - 1 - span),
            "word_stride": word_stride,
            "run_stride": run_stride,
        }

    def _load(self) -> None:
        c, rng = self.config, self.rng
        sizes = {
            Memory.ACTIVATION: c.activation_words,
            Memory.WEIGHT: c.weight_words,
            Memory.RESIDUAL: c.residual_words,
            Memory.MASK: c.mask_words,
        }
        memory = rng.choice(list(sizes))
        region = rng.choice([Region.CONSTANT, Region.WORKSPACE, Region.IO])
        if memory == Memory.MASK:
            fields = {
                "region": region,
                "memory": memory,
                "words": c.mask_words // 2,
                "runs": 1,
                "word_stride": 1,
                "address": rng.randint(0, c.mask_words // 2),
            }
        else:
            fields = self._transfer(memory, sizes[memory], region)
        self._emit(Opcode.LOAD, queue=rng.randrange(2), **fields)

    def _store(self) -> None:
        c, rng = self.config, self.rng
        sizes = {
            Memory.ACTIVATION: c.activation_words,
            Memory.WEIGHT: c.weight_words,
            Memory.RESIDUAL: c.residual_words,
        }
        memory = rng.choice(list(sizes))
        region = rng.choice([Region.WORKSPACE, Region.IO])
        self._emit(Opcode.STORE, **self._transfer(memory, sizes[memory], region))

    def _gemm_fields(self, rows: int, k_tiles: int, n_tiles: int) -> tuple[Opcode, dict[str, int]]:
        """Opcode and operands, in any weight format that the machine has."""
        c, rng = self.config, self.rng
        has = {Opcode.GEMM: True, Opcode.SPARSE_GEMM: c.sparse, Opcode.SCALED_GEMM: c.scales}
        has |= {Opcode.LOW_GEMM: c.prune}
        opcode = rng.choice([opcode for opcode, exists in has.items() if exists])
        scaled, low = opcode == Opcode.SCALED_GEMM, opcode == Opcode.LOW_GEMM
        int4 = 1 if scaled else rng.randrange(2) if c.int4 and not low else 0
        group = rng.choice([0, 1, 2, 3, 15][scaled:]) if int4 else 0
        plain = low or (opcode == Opcode.GEMM and not int4)
        fields = {
            "w_by_column": rng.randrange(2) if plain else 0,
            "w_int4": int4,
            "w_group": group,
        }
        form = tile_format(c, opcode, fields)
        wide = 1 if low else rng.randrange(2) if c.decoder else 0
        a = self._panels(c.activation_words, (1 + wide) * rows, k_tiles * form.panels)
        total = form.total_words(k_tiles)
        heads = total - k_tiles * form.words
        w_k, w_n = rng.choice(
            [(form.words, total), (n_tiles * form.words, form.words), (form.words, 0)]
        )
        room = c.weight_words - (k_tiles - 1) * w_k - (n_tiles - 1) * w_n - heads - form.words
        return opcode, fields | {
            "rows": rows,
            "wide": wide,
            "k_tiles": k_tiles,
            "n_tiles": n_tiles,
            "a_address": a.address,
            "a_stride": a.stride,
            "a_unsigned": 0 if wide else rng.randrange(2),
            "w_address": rng.choice([0, rng.randint(0, room)]),
            "w_k_stride": w_k,
            "w_n_stride": w_n,
        }

    def _gemm(self) -> None:
        rng = self.rng
        rows, n_tiles = self._rows(), rng.randint(1, 3)
        opcode, fields = self._gemm_fields(rows, rng.randint(1, 4), n_tiles)
        # Output panels may overlap: a sum is then read soon after it was written.
        acc = self._panels(self.config.accumulator_words, rows, n_tiles)
        fields |= {"acc_address": acc.address, "acc_stride": acc.stride}
        fields["accumulate"] = rng.randrange(2)
        if self.config.decoder and not fields["accumulate"]:
            fields["rescale"] = rng.randrange(2)
        self._emit(opcode, **fields)

    def _attention(self) -> None:
        """Some blocks of online softmax on the same rows, and their division."""
        c, rng = self.config, self.rng
        rows, n_tiles, panels = self._rows(), rng.randint(1, 3), rng.randint(1, 2)
        slot = self._slot(rows)
        scores, output = self._accumulator(rows, n_tiles), self._accumulator(rows, panels)
        if abs(scores["acc_address"] - output["acc_address"]) < 3 * rows:
            output["acc_address"] = 0
            scores["acc_address"] = c.accumulator_words - n_tiles * rows
        # Who reads row state is executed only if who wrote it is.
        alive = rng.random() < 0.9
        for block in range(rng.randint(1, 3)):
            executed = alive and (block == 0 or rng.random() < 0.8)
            causal, mask = rng.randrange(2), rng.randrange(2)
            period = rng.choice([0, rng.randint(1, rows + 1)]) if c.decoder else 0
            limit = rng.choice([NO_LIMIT, rng.randint(-3, n_tiles * c.columns)])
            opcode, fields = self._gemm_fields(rows, rng.randint(1, 2), n_tiles)
            self._emit(
                opcode,
                executed,
                **(fields | scores),
                row_max=1,
                mask=mask,
                mask_address=rng.randint(0, c.mask_words - n_tiles),
                slot=slot,
                limit=limit,
                causal=causal,
                period=period,
            )
            groups = n_tiles * c.groups_per_column_panel
            destination = self._destination(rows, groups)
            self._emit(
                Opcode.SOFTMAX,
                executed,
                rows=rows,
                groups=groups,
                **scores,
                **destination,
                slot=slot,
                limit=rng.choice([limit, NO_LIMIT]),  # beyond: scores that no maximum covers
                causal=causal,
                period=period,
                score_shift=rng.randint(0, 12),
                first=int(block == 0),
                drop=rng.randrange(8),
            )
            opcode, fields = self._gemm_fields(rows, rng.randint(1, 2), panels)
            self._emit(
                opcode,
                executed,
                **(fields | output),
                accumulate=int(block > 0),
                rescale=int(block > 0),
                slot=slot,
            )
        groups = panels * c.groups_per_column_panel
        self._emit(
            Opcode.SCALE,
            None if alive else 0,
            rows=rows,
            groups=groups,
            **output,
            **self._result(rows, groups),
            **self._same("same_param1"),
            param1=self._param(groups),
            slot=slot,
        )

    def _residual(self, rows: int, groups: int) -> dict[str, int]:
        """Operand and result: in place or apart, as a command that overlaps itself is undefined."""
        size = rows * groups
        last = self.config.residual_words - size
        source = target = self.rng.randint(0, last)
        if self.rng.randrange(3):
            target = self.rng.choice(
                [t for t in range(last + 1) if abs(t - source) >= size] or [source]
            )
        return {"res_address": source, "res_dst_address": target, "res_stride": groups}

    def _vector(self, executed: int | None = None, **forced: int) -> dict[str, int]:
        c, rng = self.config, self.rng
        rows, groups = self._rows(), rng.randint(1, 5)
        panels = -(-groups // c.groups_per_column_panel)
        fields = self._accumulator(rows, panels) | self._result(rows, groups)
        fields |= self._residual(rows, groups) | self._same("same_param0", "same_param1")
        fields |= {
            "rows": rows,
            "groups": groups,
            "param0": self._param(groups),
            "param1": self._param(groups),
            "from_residual": rng.randrange(2),
            "function": self._function(),
            "add_residual": rng.randrange(2),
            "res_shift": rng.randrange(5),
            "write_residual": rng.randrange(2),
            "two_stage": rng.randrange(2),
            "wrap": rng.randrange(2) & ~fields["wide"],
            "slot": self._slot(rows),
        }
        if rng.randrange(3) == 0:
            fields |= {"statistics": 1, "statistics_first": 1}
        fields |= forced
        self._emit(Opcode.VECTOR, executed, **fields)
        return fields

    def _norm(self) -> None:
        """Statistics of some rows, of one or two commands, and their norm."""
        rng, c = self.rng, self.config
        v = self._vector(executed=1, statistics=1, statistics_first=1)
        if rng.randrange(2):
            v = self._vector(
                statistics=1,
                statistics_first=0,
                rows=1,
                slot=v["slot"],
                groups=1,
            ) | {"rows": v["rows"], "groups": v["groups"]}
        rows, groups = v["rows"], v["groups"]
        fields = self._result(rows, groups) | self._residual(rows, groups)
        fields |= self._same("same_param1", "rms")
        self._emit(
            Opcode.NORM,
            rows=rows,
            groups=groups,
            **fields,
            param0=self._param(groups),
            param1=self._param(groups),
            slot=v["slot"],
            write_residual=rng.randrange(2),
            features=groups * c.lanes,
            epsilon=rng.choice([1, 1000, (1 << 32) - 1]),
        )

    def _function(self) -> int:
        return self.rng.randrange(Function.SILU + self.config.decoder)

    def _two_stages(self, rows: int, groups: int, results: int) -> dict[str, int]:
        """What a VECTOR needs whose second stage is a product or a rotation."""
        c = self.config
        fields = self._accumulator(rows, -(-groups // c.groups_per_column_panel))
        fields |= self._result(rows, results)
        while not fields["dst_memory"]:
            fields |= self._result(rows, results)
        return fields | {
            "rows": rows,
            "groups": groups,
            "param0": self._param(groups),
            "param1": self._param(results),
            "function": self._function(),
            "two_stage": 1,
            **self._same("same_param0", "same_param1"),
        }

    def _gated(self) -> None:
        results = self.rng.randint(1, 3)
        fields = self._two_stages(self._rows(), 2 * results, results)
        self._emit(Opcode.VECTOR, **fields, gated=1)

    def _rotate(self) -> None:
        rows, groups = self._rows(), self.rng.randint(1, 5)
        fields = self._two_stages(rows, groups, groups) | self._residual(rows, groups)
        self._emit(Opcode.VECTOR, **fields, rotate=1, res_shift=self.rng.randrange(5))

    def _select(self) -> None:
        """Softmax sum and largest values of the same rows, over some blocks of scores."""
        c, rng = self.config, self.rng
        rows, n_tiles = rng.choice([1, 1, 2, SELECTED]), rng.randint(1, 2)
        slot, scores = rng.randint(0, 2 * SELECTED - rows), self._accumulator(rows, n_tiles)
        executed = rng.random() < 0.9
        groups, blocks = n_tiles * c.groups_per_column_panel, rng.randint(1, 2)
        words = selection_words(c)
        stride = min(rng.choice([words, words + 1, 3]), (c.residual_words - words) // rows)
        for block in range(blocks):
            shift, limit = rng.randrange(12), rng.randint(-1, n_tiles * c.columns)
            opcode, fields = self._gemm_fields(rows, rng.randint(1, 2), n_tiles)
            block_of = {"slot": slot, "limit": limit}
            self._emit(opcode, executed, **(fields | scores | block_of), row_max=1)
            shared = {"rows": rows, "groups": groups, **scores, **block_of, "score_shift": shift}
            self._emit(
                Opcode.SOFTMAX,
                executed,
                **shared,
                **self._destination(rows, groups),
                first=int(block == 0),
            )
            self._emit(
                Opcode.SELECT,
                executed,
                **shared,
                register=rng.choice([0, SELECTING]),
                base=rng.getrandbits(20),
                first=int(block == 0),
                write_residual=int(block == blocks - 1),
                res_address=rng.randint(0, c.residual_words - words - (rows - 1) * stride),
                res_stride=stride,
            )

    def _prune(self) -> None:
        """Blocks of scores, whether they stay, and commands that it drops if they do not."""
        c, rng = self.config, self.rng
        rows, n_tiles = rng.choice([1, 1, 3, self._rows()]), rng.randint(1, 2)
        slot, scores = self._slot(rows), self._accumulator(rows, n_tiles)
        shift = rng.choice([0, rng.randint(0, 12), rng.randint(4, 9)])
        for block in range(rng.randint(1, 4)):
            opcode, fields = self._gemm_fields(rows, rng.randint(1, 2), n_tiles)
            limit = rng.choice([NO_LIMIT, rng.randint(-1, n_tiles * c.columns)])
            fields |= {"limit": limit, "accumulate": rng.randrange(2), "slot": slot}
            self._emit(opcode, 1, **(fields | scores), row_max=1)
            self._emit(
                Opcode.KEEP,
                rows=rows,
                slot=slot,
                limit=rng.choice([NO_LIMIT, rng.randint(-3, 3)]),
                score_shift=shift,
                first=int(block == 0),
                octaves=rng.choice([0, 1, rng.randrange(32), 31]),
                register=rng.choice([0, KEEPING, KEEPING]),
            )
        if KEEPING in self.emitter.unsettled:
            self.emitter.settle(KEEPING)
        for _ in range(rng.randint(1, 3)):
            opcode, fields = self._gemm_fields(rows, rng.randint(1, 3), n_tiles)
            fields |= scores | {"accumulate": rng.randrange(2), "limit": rng.randint(-9, 0)}
            self.emitter.emit(opcode, **fields, predicate=KEEPING)

    def _dump(self) -> None:
        """Store the first words of every memory, so that they are compared too."""
        c = self.config
        offset = 0
        for memory, words in (
            (Memory.ACTIVATION, c.activation_words),
            (Memory.WEIGHT, c.weight_words),
            (Memory.RESIDUAL, c.residual_words),
        ):
            self.emitter.emit(
                Opcode.STORE,
                region=Region.IO,
                memory=memory,
                offset=offset,
                words=words,
                runs=1,
                word_stride=1,
            )
            offset += words * pitch_of(c, memory)
        assert offset <= REGION_BYTES[Region.IO]
