"""What another system must know of an exported accelerator: registers, memories, commands.

`describe` gives it as JSON values, `with_header` the gist of it atop the Verilog file. Both come
from the definitions that the RTL itself is built from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw.config import OPTIONS, AcceleratorConfig
from hw.dma.transfer import pitch
from hw.isa import (
    COMMAND_BYTES,
    COMMANDS,
    DISTANCE_BITS,
    ISA_VERSION,
    WAIT_BITS,
    WAIT_SLOTS,
    CommandSpec,
    ErrorCode,
    Function,
    Memory,
    Region,
    Unit,
)
from hw.registers import (
    ACTIVITY_TEXTS,
    COUNTER_TEXTS,
    ID_VALUE,
    REGION_FIELDS,
    Register,
    State,
    activity_address,
    counter_address,
    region_address,
)

__all__ = ["describe", "memories", "with_header"]

DESCRIPTION_VERSION = 1

_LINT = {
    "WIDTHEXPAND": "Yosys leaves the extension of operands to the rules of Verilog",
    "WIDTHTRUNC": "and the truncation of results",
    "CASEINCOMPLETE": "outputs of its case statements have their defaults before them",
    "INITIALDLY": "the first value of a register that starts the combinational blocks",
    "SYMRSVDWORD": "`interrupt` is a common word in C++; Verilator renames it there",
}
"""Verilator's default warnings about how the file is written, not about what it does."""


def memories(config: AcceleratorConfig) -> dict[Memory, dict[str, int]]:
    """Of each on-chip memory: `words`, `word_bits`, and `pitch`, bytes of a word in DRAM."""
    c = config
    param = (c.param_words, 8 * c.param_pitch)
    sizes = {
        Memory.ACTIVATION: (c.activation_words, 8 * c.rows),
        Memory.WEIGHT: (c.weight_words, 8 * c.weight_bytes),
        Memory.RESIDUAL: (c.residual_words, 8 * c.residual_pitch),
        Memory.PARAM0: param,
        Memory.PARAM1: param,
        Memory.MASK: (c.mask_words, c.columns),
    }
    return {
        memory: {"words": words, "word_bits": bits, "pitch": pitch(c, memory)}
        for memory, (words, bits) in sizes.items()
    }


def _header_fields() -> list[dict[str, Any]]:
    """Fields that every command begins with: `name`, `offset` and `bits`."""
    unit_bits = WAIT_BITS - DISTANCE_BITS
    waits = [
        {"name": f"wait{slot}_{name}", "offset": 8 + WAIT_BITS * slot + low, "bits": bits}
        for slot in range(WAIT_SLOTS)
        for name, low, bits in (("unit", 0, unit_bits), ("distance", unit_bits, DISTANCE_BITS))
    ]
    return [{"name": "opcode", "offset": 0, "bits": 8}, *waits]


def _numbers(kind: Any) -> dict[str, int]:
    return {item.name: int(item) for item in kind}


def _activity() -> dict[str, Any]:
    return {
        name: {"address": activity_address(name), "text": text}
        for name, text in ACTIVITY_TEXTS.items()
    }


def _command(spec: CommandSpec) -> dict[str, Any]:
    return {
        "opcode": int(spec.opcode),
        "units": [unit.name for unit in spec.units],
        "summary": spec.summary,
        "fields": [
            {
                "name": item.name,
                "offset": spec.offset_of(item.name),
                "bits": item.bits,
                "signed": item.signed,
                "nonzero": item.nonzero,
                "text": item.doc,
            }
            for item in spec.all_fields
        ],
    }


def describe(config: AcceleratorConfig, ports: Mapping[str, int]) -> dict[str, Any]:
    """Everything a driver or an assembler in any language needs, as JSON values.

    ports: width in bits of each port of the Verilog module, negative for inputs.
    Bit offsets count from the least significant bit of a command's little-endian bytes.
    """
    return {
        "format": "weft-description",
        "version": DESCRIPTION_VERSION,
        "config": {"name": config.name, **config.hardware()},
        "fingerprint": config.fingerprint(),
        "id": ID_VALUE,
        "isa_version": ISA_VERSION,
        "ports": [
            {"name": name, "direction": "input" if bits < 0 else "output", "bits": abs(bits)}
            for name, bits in ports.items()
        ],
        "registers": {item.name: {"address": int(item), "text": item.text} for item in Register},
        "regions": {
            region.name: {
                "number": int(region),
                **{name: region_address(region) + 4 * i for i, name in enumerate(REGION_FIELDS)},
            }
            for region in Region
        },
        "counters": {
            name: {"address": counter_address(name), "text": text}
            for name, text in COUNTER_TEXTS.items()
        },
        **({"activity": _activity()} if config.sleep else {}),
        "states": _numbers(State),
        "errors": {item.name: {"code": int(item), "text": item.text} for item in ErrorCode},
        "memories": {
            item.name: {"number": int(item), **size} for item, size in memories(config).items()
        },
        "units": _numbers(Unit),
        "functions": _numbers(Function),
        "command_bytes": COMMAND_BYTES,
        "header": _header_fields(),
        "commands": {spec.opcode.name: _command(spec) for spec in COMMANDS.values()},
    }


def _header(config: AcceleratorConfig) -> str:
    c = config
    options = "".join(f", {name}" for name in OPTIONS if getattr(c, name))
    lines = [
        "SPDX-License-Identifier: Apache-2.0",
        "",
        f"Weft transformer accelerator, configuration {c.name}: {c.rows}x{c.columns} array, "
        f"{c.lanes} vector lanes{options}",
        f"Command stream version {ISA_VERSION}, fingerprint 0x{c.fingerprint():08X}",
        "",
        f"Ports: clk, rst (synchronous, high), m_axi_* (AXI4, {c.address_bits}-bit addresses, "
        f"{8 * c.bus_bytes}-bit data),",
        "       s_axil_* (AXI4-Lite, 32-bit registers), interrupt (level), trace_* (pulses)",
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def with_header(text: str, config: AcceleratorConfig) -> str:
    """The Verilog `text` under a comment that says what it is, its writer's lint turned off."""
    off = "".join(f"/* verilator lint_off {name} */  // {why}\n" for name, why in _LINT.items())
    on = "".join(f"/* verilator lint_on {name} */\n" for name in _LINT)
    return f"{_header(config)}\n{off}\n{text}\n{on}"
