"""The one configuration from which RTL, compiler, golden model and driver are built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["PRESETS", "AcceleratorConfig", "ConfigError", "get_config", "read_config"]


class ConfigError(ValueError):
    """A configuration that cannot work; the text names the field and what to change."""


OPTIONS = ("sparse", "int4", "scales", "decoder", "sleep", "prune")
"""Parts that can be left out."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _next_power_of_two(value: int) -> int:
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Sizes and options of one accelerator.

    Parameters
    ----------
    name: preset name, or any label.
    rows: reduction length of the systolic array, R (even: rows are built in pairs).
    columns: outputs of the systolic array, C.
    lanes: vector lanes, V, a power of two that divides R and C.
    activation_words: activation memory, words of R bytes.
    weight_words: weight and key/value memory, words of max(R, C) bytes.
    residual_words: residual memory, words of V INT16.
    accumulator_words: accumulator memory, words of C INT32 (even: two parity banks).
    param_words: each of the two parameter memories, words of V records of 64 bits.
    mask_words: key mask memory, words of C bits.
    row_slots: rows whose state (running maximum, sum, statistics) is held on chip.
    bus_bytes: AXI4 data width.
    address_bits: AXI4 address width, and so of the base registers.
    queue_depth: commands waiting in front of each unit.
    max_outstanding: AXI4 read bursts in flight.
    burst_bytes: longest AXI4 burst.
    sparse: the array multiplies by 2:4 sparse weights too (`SPARSE_GEMM`).
    int4: weights may be stored as INT4.
    scales: groups of INT4 weights may have a scale and an offset (`SCALED_GEMM`).
    decoder: what language models need: registers and predicates, 16-bit operands, root mean square
        norms, gates, rotations and the selection of the largest outputs.
    sleep: units without work stop their registers, and counters tell for how long, and what each
        unit did (`hw.registers.ACTIVITY`). Programs, their bytes and their cycles are the same.
    prune: attention over a cache can leave out key blocks by the high bytes of their keys
        (`LOW_GEMM`, `KEEP`, and a BARRIER that waits for some commands only).
    memory_bytes: bytes a cycle that the memory behind the bus gives, if less than the bus; 0: as
        many. The compiler plans with it. The hardware does not depend on it, so neither does the
        fingerprint.
    """

    name: str = "custom"
    rows: int = 16
    columns: int = 16
    lanes: int = 8
    activation_words: int = 8192
    weight_words: int = 4096
    residual_words: int = 4096
    accumulator_words: int = 1024
    param_words: int = 512
    mask_words: int = 64
    row_slots: int = 128
    bus_bytes: int = 16
    address_bits: int = 32
    queue_depth: int = 8
    max_outstanding: int = 16
    burst_bytes: int = 256
    sparse: bool = False
    int4: bool = False
    scales: bool = False
    decoder: bool = False
    sleep: bool = False
    prune: bool = False
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        def check(condition: bool, text: str) -> None:
            if not condition:
                raise ConfigError(f"configuration {self.name!r}: {text}")

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in OPTIONS:
                check(isinstance(value, bool), f"{field.name} must be a bool, got {value!r}")
            elif field.name == "memory_bytes":
                check(
                    type(value) is int and 0 <= value <= self.bus_bytes,
                    f"memory_bytes={value!r} must be 1 to bus_bytes={self.bus_bytes}, or 0",
                )
            elif field.name != "name":
                check(
                    isinstance(value, int) and not isinstance(value, bool) and value > 0,
                    f"{field.name} must be a positive integer, got {value!r}",
                )
        check(
            self.rows % 2 == 0 and 2 <= self.rows <= 128,
            f"rows={self.rows} must be even, 2 to 128",
        )
        check(2 <= self.columns <= 128, f"columns={self.columns} must be 2 to 128")
        check(
            _is_power_of_two(self.lanes)
            and self.rows % self.lanes == 0
            and self.columns % self.lanes == 0,
            f"lanes={self.lanes} must be a power of two that divides rows={self.rows} "
            f"and columns={self.columns}",
        )
        check(
            _is_power_of_two(self.bus_bytes) and 4 <= self.bus_bytes <= 128,
            f"bus_bytes={self.bus_bytes} must be a power of two from 4 to 128",
        )
        narrowest = min(self.activation_pitch, self.weight_pitch, self.residual_pitch)
        check(
            self.bus_bytes <= narrowest,
            f"bus_bytes={self.bus_bytes} must not exceed the narrowest memory word "
            f"({narrowest} bytes): use a narrower bus, more lanes or more rows",
        )
        check(
            _is_power_of_two(self.burst_bytes)
            and self.bus_bytes <= self.burst_bytes <= min(4096, 256 * self.bus_bytes),
            f"burst_bytes={self.burst_bytes} must be a power of two between one beat and "
            f"256 beats, and at most 4096",
        )
        for name in ("activation_words", "weight_words", "residual_words", "accumulator_words"):
            value = getattr(self, name)
            check(
                value % 2 == 0 and value <= 65536,
                f"{name}={value} must be even (two parity banks) and at most 65536",
            )
        check(
            not self.sparse or self.activation_words % 4 == 0,
            f"activation_words={self.activation_words} must be a multiple of 4 (four banks) "
            f"with sparse=True",
        )
        check(not self.prune or self.decoder, "prune=True needs decoder=True: it is of its caches")
        check(not self.scales or self.int4, "scales=True needs int4=True: they are of INT4 weights")
        check(
            not self.scales or self.rows <= 64,
            f"rows={self.rows} must be at most 64 with scales=True",
        )
        check(self.param_words <= 4096, f"param_words={self.param_words} must be at most 4096")
        check(self.mask_words <= 4096, f"mask_words={self.mask_words} must be at most 4096")
        check(
            2 <= self.row_slots <= 1024,
            f"row_slots={self.row_slots} must be between 2 and 1024",
        )
        check(
            not self.decoder or self.row_slots >= 32,
            f"row_slots={self.row_slots} must be at least 32 with decoder=True",
        )
        check(
            not self.decoder
            or (self.lanes >= 2 and self.rows >= 2 * self.lanes and self.columns >= 2 * self.lanes),
            f"lanes={self.lanes} must be at least 2, and at most half of rows={self.rows} and "
            f"columns={self.columns}, with decoder=True",
        )
        check(
            not self.decoder or self.row_slots >= 8,
            f"row_slots={self.row_slots} must be at least 8 with decoder=True",
        )
        check(32 <= self.address_bits <= 64, f"address_bits={self.address_bits} must be 32 to 64")
        check(
            _is_power_of_two(self.queue_depth) and 2 <= self.queue_depth <= 64,
            f"queue_depth={self.queue_depth} must be a power of two, 2 to 64",
        )
        check(
            _is_power_of_two(self.max_outstanding) and self.max_outstanding <= 64,
            f"max_outstanding={self.max_outstanding} must be a power of two, at most 64",
        )

    # Word sizes. A memory word's *pitch* is what it takes in DRAM: its bytes rounded up to a
    # power of two, so that a word is always a whole number of bus beats.
    @property
    def activation_pitch(self) -> int:
        """Bytes of one activation word in DRAM."""
        return _next_power_of_two(self.rows)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight word: one row (C) or one column (R) of a tile."""
        return max(self.rows, self.columns)

    @property
    def weight_pitch(self) -> int:
        """Bytes of one weight word in DRAM."""
        return _next_power_of_two(self.weight_bytes)

    @property
    def residual_pitch(self) -> int:
        """Bytes of one residual word: V INT16 values."""
        return 2 * self.lanes

    @property
    def param_pitch(self) -> int:
        """Bytes of one parameter word: V records of 8 bytes."""
        return 8 * self.lanes

    @property
    def mask_pitch(self) -> int:
        """Bytes of one mask word in DRAM: a byte for each of C keys, at least one beat."""
        return max(_next_power_of_two(self.columns), self.bus_bytes)

    @property
    def memory_rate(self) -> int:
        """Bytes a cycle that the compiler reckons with."""
        return self.memory_bytes or self.bus_bytes

    @property
    def psum_bits(self) -> int:
        """Partial sum width: |a| <= 255, |w| <= 128, so 16 bits a product, plus log2(R)."""
        return 16 + (self.rows - 1).bit_length()

    @property
    def sum_bits(self) -> int:
        """What leaves the array: a partial sum; or 256 of signed high bytes (|a| <= 128, so a bit
        less) and one of low bytes together; or one of INT4 weights with scale and offset."""
        return self.psum_bits + (9 if self.scales else 8 if self.decoder else 0)

    @property
    def int4_sum_bits(self) -> int:
        """Partial sum of INT4 weights as they are stored: |w| <= 8."""
        return self.psum_bits - 4

    @property
    def groups_per_column_panel(self) -> int:
        """Vector groups (V values) in one accumulator word, C / V."""
        return self.columns // self.lanes

    @property
    def groups_per_row_panel(self) -> int:
        """Vector groups (V values) in one activation word, R / V."""
        return self.rows // self.lanes

    @property
    def onchip_bytes(self) -> int:
        """Bytes of all on-chip memories that commands address."""
        return (
            self.activation_words * self.rows
            + self.weight_words * self.weight_bytes
            + self.residual_words * self.residual_pitch
            + self.accumulator_words * self.columns * 4
            + 2 * self.param_words * self.param_pitch
            + self.mask_words * self.columns // 8
        )

    @property
    def trims(self) -> bool:
        """Whether a GEMM may leave out tiles (`trim`): dispatch divides by shifts."""
        sizes = (self.rows, self.columns)
        return self.decoder and all(map(_is_power_of_two, sizes))

    def hardware(self) -> dict[str, int | bool]:
        """The fields that the hardware depends on: all but the name and the memory's bytes."""
        fields = dataclasses.asdict(self)
        del fields["name"], fields["memory_bytes"]
        for option in ("scales", "sleep", "prune"):
            if not fields[option]:  # machines from before there was it are still the same
                del fields[option]
        return fields

    def differences(self, other: AcceleratorConfig) -> str:
        """Fields in which the hardware differs, with both values; empty if it does not."""
        fields = self.hardware() | other.hardware()  # in order, an option of one of them last
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in fields)
        return ", ".join(f"{name} {mine} against {its}" for name, mine, its in pairs if mine != its)

    def with_memory(self, width: int) -> AcceleratorConfig:
        """The same machine for a memory that gives so many bytes a cycle."""
        return replace(self, memory_bytes=width if width < self.bus_bytes else 0)

    def fingerprint(self) -> int:
        """32 bits that tie a program to the configuration it was compiled for."""
        fields = json.dumps(self.hardware(), sort_keys=True)
        digest = hashlib.sha256(fields.encode()).digest()
        return int.from_bytes(digest[:4], "little")


PRESETS: dict[str, AcceleratorConfig] = {
    config.name: config
    for config in (
        AcceleratorConfig(
            name="tiny",
            rows=4,
            columns=4,
            lanes=2,
            activation_words=2048,
            weight_words=2048,
            residual_words=2048,
            accumulator_words=512,
            param_words=256,
            mask_words=64,
            row_slots=64,
            bus_bytes=4,
            burst_bytes=64,
            sparse=True,
            int4=True,
            scales=True,
            decoder=True,
        ),
        AcceleratorConfig(
            name="ulx3s",
            rows=8,
            columns=16,
            lanes=2,
            activation_words=8192,
            weight_words=2048,
            residual_words=12288,
            accumulator_words=512,
            param_words=512,
            bus_bytes=4,
            queue_depth=16,
            burst_bytes=128,
            sparse=True,
            int4=True,
            memory_bytes=2,  # its SDRAM has 16 bits
        ),
        AcceleratorConfig(name="base", sparse=True, int4=True, scales=True, decoder=True),
    )
}


def read_config(path: str) -> AcceleratorConfig:
    """The configuration of a JSON file: an object of fields, all others as they are by default.
    Raises `ConfigError`."""
    try:
        fields = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"configuration file {path} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"configuration file {path} must hold an object of fields")
    known = [field.name for field in dataclasses.fields(AcceleratorConfig)]
    unknown = sorted(fields.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"configuration file {path}: there is no field {unknown[0]!r}; there are "
            f"{', '.join(known)}"
        )
    name = fields.get("name", Path(path).stem)
    if not isinstance(name, str):
        raise ConfigError(f"configuration file {path}: name must be a text, got {name!r}")
    return AcceleratorConfig(**{**fields, "name": name})


def get_config(config: str | AcceleratorConfig) -> AcceleratorConfig:
    """Return a preset by name, that of a file (`FILE.json`), or the configuration itself. Raises
    `ConfigError`.

    Options may be added to both: "base+sleep".
    """
    if isinstance(config, AcceleratorConfig):
        return config
    path, suffix, rest = config.rpartition(".json")
    preset, *options = rest.split("+") if suffix else config.split("+")
    if suffix and not preset:
        found = read_config(path + suffix)
    elif preset in PRESETS:
        found = PRESETS[preset]
    else:
        raise ConfigError(
            f"unknown configuration {config!r}; presets: {', '.join(PRESETS)}; or a FILE.json"
        )
    for option in options:
        if option not in OPTIONS:
            raise ConfigError(f"configuration {config!r}: options are {', '.join(OPTIONS)}")
    if not options:
        return found
    name = f"{found.name}+{'+'.join(options)}"
    return replace(found, name=name, **dict.fromkeys(options, True))
