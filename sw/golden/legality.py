"""What the dispatcher of a machine refuses although the command stream has it."""

from __future__ import annotations

from hw.config import AcceleratorConfig
from hw.isa import HEADER, PRUNE_OPCODES, Command, Function, IsaError, Memory, Opcode

__all__ = ["check_legal"]


def check_legal(command: Command, config: AcceleratorConfig) -> None:
    """Raises `IsaError` for a decoded command that no machine of `config` starts."""
    v = command.values
    options = {
        "sparse": command.opcode == Opcode.SPARSE_GEMM,
        "int4": v.get("w_int4", 0),
        "scales": command.opcode == Opcode.SCALED_GEMM,
        "decoder": needs_decoder(command),
        "prune": command.opcode in PRUNE_OPCODES,
    }
    for option, used in options.items():
        if used and not getattr(config, option):
            raise IsaError(f"the configuration is without {option!r}")
    if v.get("trim", 0) and not config.trims:
        raise IsaError(f"no trim with {config.rows} rows and {config.columns} columns")
    bus = config.bus_bytes
    if v.get("offset", 0) % bus or v.get("dram_stride", 0) % bus:
        raise IsaError(f"DRAM offset not a multiple of {bus}")
    narrow = v.get("dst_memory") == Memory.ACTIVATION and config.columns > config.rows
    if narrow and v["dst_by_column"]:
        raise IsaError(f"activation words are shorter than {config.columns} bytes")


_OF_DECODERS = (
    *(item.name for item in HEADER),
    "gated",
    "rotate",
    "same_param0",
    "same_param1",
    "rms",
)


def needs_decoder(command: Command) -> bool:
    """Whether only a configuration with `decoder` has this command."""
    v = command.values
    return bool(
        command.opcode in (Opcode.SELECT, Opcode.ADD)
        or any(v.get(name, 0) for name in _OF_DECODERS)
        or v.get("function", 0) == Function.SILU
        or (v.get("rescale", 0) and not v["accumulate"])
    )
